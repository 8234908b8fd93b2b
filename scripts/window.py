"""How does a window slide over a matrix? A film with every number, as GIF or MP4.

python scripts/window.py                       the textbook's first example: 16
python scripts/window.py 7x7 --stride 2 --padding same
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
        default="9 4 1; 1 1 1; 1 2 1",
        help="a matrix, a size such as 7x7 (filled with small numbers), or a picture",
    )
    parser.add_argument(
        "--patch", default="7x7+0+0", help="of a picture: height x width + top + left"
    )
    parser.add_argument("--kernel", default="0 2 1; 4 1 0; 1 0 1", help="a name or a matrix")
    parser.add_argument("--pool", choices=("max", "avg"), help="pool instead of convolving")
    parser.add_argument("--size", default="2", help="of the pooling window")
    parser.add_argument("--stride", help="2, or 2x1 (height x width); of a pool its size")
    parser.add_argument("--padding", default="valid", help="valid, same, 1, or 0x2")
    parser.add_argument("--dilation", default="1", help="2, or 1x2")
    parser.add_argument(
        "--convolution", action="store_true", help="turn the kernel by 180 degrees first"
    )
    parser.add_argument("--fps", type=float, default=1, help="positions per second")
    parser.add_argument("--frames", type=Path, help="also write each position as PNG here")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/window.gif"), help="a .gif, or an .mp4 (ffmpeg)"
    )
    arguments = parser.parse_args()

    def command() -> None:
        from convscape.base.errors import ConfigError
        from convscape.drawing.numbers import film, read_matrix, save_film, save_frames

        if arguments.fps <= 0 or arguments.out.suffix.lower() not in (".gif", ".mp4"):
            raise ConfigError(
                f"--fps={arguments.fps:g} --out={arguments.out}; allowed: more than 0, .gif or .mp4"
            )
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
        frames = list(moving.frames())
        save_film(frames, arguments.out, arguments.fps)
        if arguments.frames:
            save_frames(frames, arguments.frames)
        say(moving.title, f"first position: {moving.window.step(0, 0).in_words()}")
        say(f"{arguments.out}: {len(frames)} positions")

    run_command(command)


if __name__ == "__main__":
    main()
