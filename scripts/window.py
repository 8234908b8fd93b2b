"""How does a window slide over a matrix? An animation with every number: GIF, MP4 or a page.

python scripts/window.py                       a 3x3 kernel over a 7x7 matrix
python scripts/window.py --html --stride 2 --padding same     play and change it in the browser
python scripts/window.py "9 4 1; 1 1 1; 1 2 1"                the textbook's first example: 16
python scripts/window.py "9 4 1; 1 1 1; 1 2 1" --pool max --size 2 --stride 1
python scripts/window.py flower --patch 8x8+200+300 --kernel edge_detection
"""

from pathlib import Path

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command


def main() -> None:
    """Read the command line, write the film."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "input",
        nargs="?",
        default="7x7",
        help="a matrix, a size such as 7x7 (filled with small numbers), or a picture",
    )
    parser.add_argument(
        "--patch", default="7x7+0+0", help="of a picture: height x width + top + left"
    )
    parser.add_argument("--kernel", default="0 2 1; 4 1 0; 1 0 1", help="a name or a matrix")
    parser.add_argument("--pool", choices=("max", "avg"), help="pool instead of convolving")
    parser.add_argument("--size", default="2", help="of the pooling window")
    parser.add_argument("--stride", help="2, or 2x1 (height x width); a pool: its size")
    parser.add_argument("--padding", default="valid", help="valid, same, 1, or 0x2")
    parser.add_argument("--dilation", default="1", help="2, or 1x2")
    parser.add_argument(
        "--convolution", action="store_true", help="rotate the kernel by 180 degrees first"
    )
    parser.add_argument("--fps", type=float, default=1, help="positions per second")
    parser.add_argument("--frames", type=Path, help="also write each position as PNG here")
    parser.add_argument(
        "--html", action="store_true", help="write a page: the same as --out *.html"
    )
    parser.add_argument(
        "--out", type=Path, help="a .gif, an .mp4 (ffmpeg) or .html (default outputs/window.gif)"
    )
    arguments = parser.parse_args()

    def command() -> None:
        from convscape.base.errors import ConfigError
        from convscape.drawing.numbers import film, read_matrix, save_film, save_frames

        out = arguments.out or Path(
            "outputs/window.html" if arguments.html else "outputs/window.gif"
        )
        suffixes = (".html",) if arguments.html else (".gif", ".mp4", ".html")
        if arguments.fps <= 0 or out.suffix.lower() not in suffixes:
            allowed = f"more than 0, {' or '.join(suffixes)}"
            raise ConfigError(f"--fps={arguments.fps:g} --out={out}; allowed: {allowed}")
        moving = film(
            read_matrix(arguments.input, arguments.patch),
            kernel=arguments.kernel,
            pool=arguments.pool,
            pool_size=arguments.size,
            stride=arguments.stride,
            padding=arguments.padding,
            dilation=arguments.dilation,
            flipped=arguments.convolution,
        )
        frames = list(moving.frames()) if arguments.frames or out.suffix != ".html" else []
        if out.suffix.lower() == ".html":
            from convscape.living.film import write_film

            write_film(moving.window, out, arguments.fps)
        else:
            save_film(frames, out, arguments.fps)
        if arguments.frames:
            save_frames(frames, arguments.frames)
        say(moving.title, f"first position: {moving.window.step(0, 0).in_words()}")
        say(f"{out}: {moving.window.output.size} positions")

    run_command(command)


if __name__ == "__main__":
    main()
