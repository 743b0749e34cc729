"""The networks of SDATC, one module of the paper a file. Equation numbers are the paper's."""
