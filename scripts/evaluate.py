"""How good is a trained network? Accuracy per class and the confusion matrix of its checkpoint."""

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command, run_folder, words_and_places


def main() -> None:
    """Read the command line, print the answer."""
    parser = new_parser(__doc__)
    parser.add_argument("run", type=run_folder, help="outputs/runs/<run>, or latest")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument(
        "--temperature",
        action="store_true",
        help="also calibrate its confidence: fit a temperature on the validation images",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="average the logits of each image and its mirror image",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    words, places = words_and_places(parser)
    arguments = parser.parse_args(words)

    def command() -> None:
        from convscape.base.documents import print_document
        from convscape.trained.evaluate import Evaluation, evaluate
        from convscape.trained.load import load_run

        run = load_run(
            arguments.run, arguments.allow_packages, other_data=arguments.other_data, **places
        )

        def evaluated() -> Evaluation:
            return evaluate(
                run,
                arguments.split,
                with_temperature=arguments.temperature,
                flip=arguments.flip,
            )

        if arguments.json:
            print_document("evaluate", lambda: evaluated().as_dict())
        else:
            say(str(evaluated()))

    run_command(command)


if __name__ == "__main__":
    main()
