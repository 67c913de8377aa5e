"""The analysis' page and its CSV files, read back."""

import csv
import io
from html.parser import HTMLParser


class Page(HTMLParser):
    """Tables by id with the full values of their cells, pictures, and whatever would fetch something."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.pictures, self.fetched, self.ids = {}, [], [], []
        self.row = self.cell = None
        self.open = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "table":
            self.rows = self.tables[self.ids[-1]] = []
        elif tag == "tr":
            self.row = []
            self.rows.append(self.row)
        elif tag == "td":
            self.row.append("")
            self.cell = True
        elif tag == "data":
            self.row[-1] = given["value"]
            self.cell = False
        elif tag == "img":
            self.pictures.append(given)
        links = [given.get(key) for key in ("src", "href", "srcset")]
        self.fetched += [link for link in links if link and not link.startswith(("#", "data:"))]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "data"):
            self.cell = None

    def handle_data(self, text):
        if self.cell:
            self.row[-1] += text


def rows_of(path):
    return list(csv.reader(io.StringIO(path.read_text())))
