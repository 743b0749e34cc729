"""From decoded frames to restored frames: plan, clips, tiles, jobs. Knows nothing of Typer or Rich."""
