"""The errors a person can meet. Each is one line to act on and carries the exit code of the process."""


class SdatcError(Exception):
    """Base of every expected failure; `str(error)` is the one line shown on stderr."""

    exit_code = 1


class UsageError(SdatcError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class InputError(SdatcError):
    """The input is missing, unreadable, or holds no frames."""

    exit_code = 3


class ModelError(SdatcError):
    """The weights are missing, damaged, or do not match their configuration."""

    exit_code = 4


class DeviceError(SdatcError):
    """The device is missing, its memory is too small even for the smallest tile, or what it computes is no number."""

    exit_code = 5


class OutputError(SdatcError):
    """The output cannot be written where and how it was asked for."""

    exit_code = 6


class Interrupted(SdatcError):
    """The person pressed Ctrl-C, or the process was asked to end."""

    exit_code = 130
