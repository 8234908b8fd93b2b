"""What is an image to a computer? A PNG with each channel's values written into its pixels.

python scripts/pixels.py                       a handwritten digit
python scripts/pixels.py flower --size 16
python scripts/pixels.py my.png --grey
"""

from pathlib import Path

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command


def main() -> None:
    """Read the command line, write the picture."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "picture", nargs="?", default="digit", help="a file, or digit, china or flower"
    )
    parser.add_argument("--size", type=int, default=14, help="cells on the longer side, 2 to 28")
    parser.add_argument("--grey", action="store_true", help="one channel instead of three")
    parser.add_argument("--out", type=Path, default=Path("outputs/pixels.png"))
    arguments = parser.parse_args()

    def command() -> None:
        from convscape.base.errors import ConfigError
        from convscape.data.pictures import read_photograph
        from convscape.drawing.numbers import MAX_CELLS, pixels_as_numbers

        if not 2 <= arguments.size <= MAX_CELLS:
            raise ConfigError(f"--size={arguments.size}; allowed: 2 to {MAX_CELLS}")
        image, words = read_photograph(arguments.picture, arguments.size, arguments.grey)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        pixels_as_numbers(image, f"{words}: 0 is black, 1 is full").save(arguments.out)
        say(f"{arguments.out}: {words}, {image.size} numbers")

    run_command(command)


if __name__ == "__main__":
    main()
