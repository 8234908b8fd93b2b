"""What does a kernel do to a photograph? A sheet of before and after, as PNG.

python scripts/kernels.py                                     all kernels with a name
python scripts/kernels.py flower --kernel edge_detection sharpen
python scripts/kernels.py my.jpg --kernel "0 -1 0; -1 5 -1; 0 -1 0" --stride 2
"""

import argparse
from pathlib import Path

from convscape.cli import run_command, say


def main() -> None:
    """Read the command line, write the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
        help="turn the kernel by 180 degrees first, as true convolution does; without it the "
        "picture is cross-correlated with the kernel, as in every deep-learning library",
    )
    parser.add_argument(
        "--signed", action="store_true", help="show 0 as grey, so that negative values are seen"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/kernels.png"))
    arguments = parser.parse_args()

    def command() -> None:
        from convscape import visual
        from convscape.geometry import describe_layer
        from convscape.kernels import KERNELS, conv_layer, filtered, parse_kernel
        from convscape.pictures import read_photograph

        image, words = read_photograph(arguments.picture, 1024, arguments.grey)
        tiles, captions = [visual.tile(image, 320)], [words]
        for name in arguments.kernel or KERNELS:
            kernel = parse_kernel(name)
            layer = conv_layer(kernel, arguments.stride, arguments.padding, arguments.dilation)
            result = filtered(
                image, kernel, layer, turned=arguments.convolution, signed=arguments.signed
            )
            tiles.append(visual.tile(result, 320))
            size = f"{result.shape[2]}x{result.shape[1]}"
            captions.append(f"{name.strip()}\n{describe_layer(layer)}: {size}")
        what = "true convolution" if arguments.convolution else "cross-correlation"
        values = "0 is grey" if arguments.signed else "below 0 is black, above 1 white"
        sheet = visual.sheet(f"{what}, channel by channel; {values}", tiles, captions, 4)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(arguments.out)
        say(f"{arguments.out}: {what} of {words} with {len(tiles) - 1} kernels")

    run_command(command)


if __name__ == "__main__":
    main()
