"""The program `spoutnik`: puts the commands together and turns a fault of input into one sentence and exit code 1."""

import errno
import sys

import typer

from spoutnik.cli import (
    allocator,
    chat,
    compare,
    connect,
    contamination,
    doctor,
    eval_,
    export,
    keys,
    launch,
    models,
    plan,
    quantize,
    report,
    run,
    serve,
    stage,
    tasks,
    teachers,
)
from spoutnik.errors import UserError

app = typer.Typer(
    help="The whole DeepSeek recipe in the open, on the hardware you have.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("launch")(launch.launch)
for kind in stage.KINDS:
    app.command(kind, help=stage.HELP[kind])(stage.command(kind))
app.command("eval")(eval_.evaluate)
app.command("compare")(compare.compare)
app.command("contamination")(contamination.contamination)
app.command("run")(run.run)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("connect")(connect.connect)
app.command("export")(export.export)
app.command("quantize")(quantize.quantize)
app.command("report")(report.report)
app.command("teachers")(teachers.teachers)
app.add_typer(keys.app, name="key")
app.add_typer(tasks.app, name="tasks")
app.add_typer(models.app, name="models")
app.add_typer(plan.app, name="plan")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Runs the command line; returns to the shell 0, 1 for a fault of input, 2 for a misused command, 130 after Ctrl-C."""
    allocator.restart_with_kept_memory(sys.argv[1:])
    try:
        app()
    except UserError as error:
        print(f"spoutnik: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if not _disk_is_full(error):
            raise
        kept = "what was saved before is whole: make room and run the same command again."
        print(f"spoutnik: The disk is full ({error}); {kept}", file=sys.stderr)
        sys.exit(1)


def _disk_is_full(error: Exception) -> bool:
    """Whether a write failed for want of room; safetensors reports that in words, the system by number."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in str(error)
