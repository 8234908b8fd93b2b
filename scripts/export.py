"""A trained network as one file: for ONNX Runtime, for plain PyTorch, or only its weights.

python scripts/export.py outputs/runs/<run> --format onnx
python scripts/export.py outputs/runs/<run> --format torch_export --out lenet.pt2
"""

import sys
from pathlib import Path

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command, run_folder, words_and_places


def main() -> None:
    """Read the command line, write the file, say how close its logits are to the checkpoint's."""
    parser = new_parser(__doc__)
    parser.add_argument("run", type=run_folder, help="outputs/runs/<run>, or latest")
    parser.add_argument("--format", required=True, choices=("onnx", "torch_export", "safetensors"))
    parser.add_argument("--out", type=Path, help="the file (default <run>/model.<suffix>)")
    words, places = words_and_places(parser)
    arguments = parser.parse_args(words)

    def command() -> int:
        from convscape.trained.export import LogitsDiffer, check_packages, export
        from convscape.trained.load import load_run

        check_packages(arguments.format)
        run = load_run(
            arguments.run, arguments.allow_packages, other_data=arguments.other_data, **places
        )
        try:
            say(str(export(run, arguments.format, arguments.out)))
        except LogitsDiffer as error:
            say(f"error: {error}", file=sys.stderr)
            return 1
        return 0

    run_command(command)


if __name__ == "__main__":
    main()
