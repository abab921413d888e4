import base64

import jinja2
import pytest

from coca_video.errors import InputError
from coca_video.evaluation.pages import data_uri, page_template

PAGES = ("comparison_page.html.j2", "comparison_page.md.j2", "demo_page.html.j2")


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_needs_must_be_given(name):
    with pytest.raises(jinja2.UndefinedError):
        page_template(name).render()


def test_a_file_as_part_of_a_page(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x00picture")
    kind, _, content = data_uri(tmp_path / "a.png", "picture").partition(",")
    assert kind == "data:image/png;base64" and base64.b64decode(content) == b"\x00picture"
    with pytest.raises(InputError, match=r"gone\.mp4: cannot read this clip: "):
        data_uri(tmp_path / "gone.mp4", "clip")
