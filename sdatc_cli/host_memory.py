"""Whether a failure means that the host's memory ran out."""

import cv2


def host_memory_ran_out(error: BaseException) -> bool:
    """True for Python's own error and for OpenCV's, which is not one of its kind."""
    return isinstance(error, MemoryError) or (isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem)
