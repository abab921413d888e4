"""`coca-video report`: many results on one page, with published figures beside them."""

import argparse
from pathlib import Path

from coca_video.evaluation.comparison import compare
from coca_video.evaluation.comparison_page import as_text, write_comparison
from coca_video.evaluation.results import find_results


def main() -> None:
    args = _parser().parse_args()
    results, passed_over = find_results(args.paths)
    sections = compare(results)
    write_comparison(args.output, sections, title=args.title, passed_over=passed_over)
    print(as_text(sections))
    for each in passed_over:
        print(f"passed over: {each}")
    print(f"written: {args.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="One table out of many results, published figures beside them.",
    )
    where = "a result.json, or a folder that has some below it"
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help=where)
    page = "ends in .html or .md; default: %(default)s"
    parser.add_argument("--output", type=Path, default=Path("report.html"), metavar="FILE", help=page)
    parser.add_argument("--title", default="Results", help="of the page; default: %(default)s")
    return parser
