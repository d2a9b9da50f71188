"""The one exception type whose message is meant for the person in front of the screen."""


class KeypointError(ValueError):
    """A problem the user can fix.

    The message is one sentence that names what was given, what is allowed and what to do. The command line
    prints it without a traceback; ComfyUI shows it in the node's error box.
    """


def check_type(name: str, value: object, kind: type, hint: str = "") -> None:
    """Raise KeypointError unless `value` is a `kind`, before a wrong type shows itself after long work.

    name: what the caller calls the argument; hint: what to do instead, a part of a sentence.
    """
    if not isinstance(value, kind):
        what = f"{name} is a {type(value).__name__}, but a {kind.__name__} is needed"
        raise KeypointError(f"{what}; {hint}." if hint else f"{what}.")
