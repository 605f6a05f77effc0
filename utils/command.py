"""What surrounds every command: a user's mistake is one line on stderr and exit status 2."""
import sys
import warnings

from utils.errors import UserError, one_line


def run_command(main):
    """Call ``main``, show warnings and errors as single lines, and exit with a fitting status."""
    warnings.showwarning = _show_warning
    try:
        main()
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def _show_warning(message, category, filename, lineno, file=None, line=None):
    if issubclass(category, UserWarning):
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
