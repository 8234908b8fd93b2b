"""What does a kernel do to a photograph? A sheet of before and after, as PNG.

python scripts/kernels.py                                     all named kernels
python scripts/kernels.py flower --kernel edge_detection sharpen
python scripts/kernels.py my.jpg --kernel "0 -1 0; -1 5 -1; 0 -1 0" --stride 2
"""

from pathlib import Path

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command


def main() -> None:
    """Read the command line, write the sheet."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "picture", nargs="?", default="china", help="a file, or china or flower (default china)"
    )
    parser.add_argument("--kernel", nargs="+", help="names, or matrices such as '0 -1 0; -1 5 -1'")
    parser.add_argument("--stride", default="1", help="3, or 2x1 (height x width)")
    parser.add_argument("--padding", default="same", help="valid, same, 1, or 0x2")
    parser.add_argument("--dilation", default="1", help="2, or 1x2")
    parser.add_argument("--grey", action="store_true", help="one channel instead of three")
    parser.add_argument(
        "--convolution",
        action="store_true",
        help="rotate the kernel by 180 degrees first, as true convolution does; otherwise the "
        "picture is cross-correlated with the kernel, as in every deep-learning library",
    )
    parser.add_argument(
        "--signed", action="store_true", help="show 0 as grey, so that negative values show too"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/kernels.png"))
    arguments = parser.parse_args()

    def command() -> None:
        from convscape.data.pictures import read_photograph
        from convscape.drawing.kernels import KERNELS
        from convscape.drawing.numbers import kernel_sheet

        image, words = read_photograph(arguments.picture, 1024, arguments.grey)
        kernels = arguments.kernel or list(KERNELS)
        sheet = kernel_sheet(
            image,
            words,
            kernels,
            stride=arguments.stride,
            padding=arguments.padding,
            dilation=arguments.dilation,
            flipped=arguments.convolution,
            signed=arguments.signed,
        )
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(arguments.out)
        what = "true convolution" if arguments.convolution else "cross-correlation"
        say(f"{arguments.out}: {what} of {words} with {len(kernels)} kernels")

    run_command(command)


if __name__ == "__main__":
    main()
