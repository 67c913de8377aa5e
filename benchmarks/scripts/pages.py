"""The reports of the experiments that were run here, kept beside the results: a page, Markdown of each, an index.

python -m masterkey.benchmarks.scripts.pages            # writes them
python -m masterkey.benchmarks.scripts.pages --check    # says whether they are those of the runs
"""

import sys
from pathlib import Path

from masterkey.atomic import write_all_atomically
from masterkey.errors import MasterkeyError
from masterkey.report_files import PAGE_NAME

from ..config import BenchmarkError
from ..experiment import experiment_names, load_experiment
from ..overview import Listed, list_experiments
from ..report.markdown import write_markdown
from ..report.page import write_page
from ..report.section import Section, make_section, plain_text
from ..report.strip import strip
from ..store import ResultStore, default_store
from .record import arguments

SIZE = "small"
INDEX = "README.md"
PICTURE, PICTURED = "flowers17-128px.svg", "arms"  # README's picture, and the experiment that it is of
PICTURE_TITLE = "ConvNeXt-Atto on Flowers-17 at 128 pixels, test part, top-1"
_PLACE = ("convnext_atto-ls1", "flowers17-128px")
_NAMES = {  # of arms, where theirs say too little
    "random-8": "eight random filters",
    "shuffled-pixels": "scale-space-8, pixels shuffled",
    "bank-pixels": "MCUNet's, pixels shuffled",
    "bank": "MCUNet's filters",
    "published-8": "the eight published keys",
}
_ENOUGH = 20  # runs; fewer are enough if they are half of an experiment's


def make_pages(store: ResultStore, size: str = SIZE) -> dict[str, bytes]:
    """Return files by name: Markdown of each experiment that has enough runs, a page of all, an index, and a picture.

    The same results give the same bytes.

    Raises:
        BenchmarkError: a result in the folder cannot be used.
    """
    listed = [each for each in list_experiments(store) if each.runs[size].finished]
    listed.sort(key=lambda each: -each.runs[size].finished)
    shown = [each for each in listed if each.runs[size].finished >= min(_ENOUGH, each.runs[size].total / 2)]
    sections = [make_section(load_experiment(each.name, size), store, None) for each in shown]
    files = {INDEX: _index(shown, sections, [each for each in listed if each not in shown], size)}
    files |= {f"{section.experiment.name}.md": write_markdown([section]) for section in sections}
    for section in sections:
        if section.experiment.name == PICTURED:
            files[PICTURE] = strip(section.results, *_PLACE, PICTURE_TITLE, _NAMES)
    return {**files, PAGE_NAME: write_page(sections)} if sections else files


def _index(shown: list[Listed], sections: list[Section], begun: list[Listed], size: str) -> bytes:
    lines = [
        "# What the experiments say",
        "",
        f"Size `{size}`; made from `runs/` by `python -m masterkey.benchmarks.scripts.pages`, never edited. Figures,",
        f"learning curves and every run are in [{PAGE_NAME}]({PAGE_NAME}), a page for a browser.",
        "",
    ]
    for each, section in zip(shown, sections, strict=True):
        lines += [f"## [{each.title}]({each.name}.md)", ""]
        lines += [f"`{each.name}`, {_count(each, size)}, {section.results.part} part.", ""]
        lines += [f"- {plain_text(sentence)}" for sentence in section.sentences]
        if each.name == PICTURED:
            lines += ["", f"![{PICTURE_TITLE}]({PICTURE})"]
        lines += [""]
    if begun:
        lines += ["## Begun", "", f"Fewer than half of their runs are finished, and fewer than {_ENOUGH}:", ""]
        lines += [f"- `{each.name}`: {each.title}, {_count(each, size)}" for each in begun]
        lines += [""]
    return "\n".join(lines).encode()


def _count(listed: Listed, size: str) -> str:
    count = listed.runs[size]
    return f"{count.finished} of {count.total} runs"


def pages_of(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder of what :func:`make_pages` may have made."""
    names = [INDEX, PAGE_NAME, PICTURE, *(f"{name}.md" for name in experiment_names())]
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def write_pages(store: ResultStore, folder: Path) -> int:
    """Write the pages, remove those of experiments that no longer have enough runs, and return how many there are.

    Raises:
        BenchmarkError: there are no runs, or a result cannot be used.
        SaveError: a file cannot be written; what was there is untouched.
    """
    files = make_pages(store)
    if len(files) == 1:
        raise BenchmarkError(f"{store.root} holds no experiment with enough runs for a page; run this where they are")
    old = pages_of(folder)
    write_all_atomically({folder / name: content for name, content in files.items()})
    for name in old.keys() - files.keys():
        (folder / name).unlink()
    return len(files)


def main() -> int:
    """Write the pages, or check them; 1 if they are of other runs, or if there are no runs."""
    parser = arguments(__doc__, "pages")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    try:
        if options.check:
            if pages_of(options.output) != make_pages(default_store()):
                print(f"{options.output} is of other runs or other code: python -m masterkey.benchmarks.scripts.pages")
                return 1
        else:
            print(f"{write_pages(default_store(), options.output)} files in {options.output}")
    except MasterkeyError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
