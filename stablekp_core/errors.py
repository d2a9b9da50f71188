"""The one exception type whose message is meant for the person in front of the screen."""


class KeypointError(ValueError):
    """A problem the user can fix.

    The message is one sentence that names what was given, what is allowed and what to do. The command line
    prints it without a traceback; ComfyUI shows it in the node's error box.
    """
