"""Web pages that arrive instead of a file, and Google Drive's addresses."""

import html
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlencode, urlsplit

import requests

GOOGLE_HOSTS = ("drive.google.com", "drive.usercontent.google.com", "docs.google.com")


def direct_address(url: str) -> str:
    """The address of the file itself if `url` is a link to a file on Google Drive, else `url`."""
    parts = urlsplit(url)
    if parts.hostname not in GOOGLE_HOSTS:
        return url
    in_path = re.match(r"/file/(?:u/\d+/)?d/([-\w]+)", parts.path)
    file_id = in_path[1] if in_path else parse_qs(parts.query).get("id", [""])[0]
    if not file_id:
        return url
    query = urlencode({"id": file_id, "export": "download", "confirm": "t"})  # t: also if too big for a virus scan
    return f"https://drive.usercontent.google.com/download?{query}"


def web_page(response: requests.Response, first: bytes) -> str | None:
    """The text of a response that starts with `first` if it is a web page."""
    start = first.removeprefix(b"\xef\xbb\xbf").lstrip()[:20].lower()
    declared = response.headers.get("Content-Type", "").startswith("text/html") and not start.startswith(b"pk")
    return first.decode("utf-8", "replace") if declared or start.startswith((b"<!doctype html", b"<html")) else None


class _ConfirmationForm(HTMLParser):
    """Collects the form by which Google Drive asks whether to skip the virus scan."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and values.get("id") == "download-form":
            self.action = values.get("action", "")
        elif tag == "input" and self.action and values.get("type") == "hidden":
            self.fields[values.get("name", "")] = values.get("value", "")


def confirmed_address(url: str, page: str) -> str | None:
    """The address behind "download anyway" on Google Drive's virus-scan page; None for any other page."""
    if urlsplit(url).hostname not in GOOGLE_HOSTS or "virus" not in page:
        return None
    form = _ConfirmationForm()
    form.feed(page)
    if not form.action:
        return None
    separator = "&" if "?" in form.action else "?"
    confirmed = f"{form.action}{separator}{urlencode(form.fields)}"
    return confirmed if confirmed != url else None


def describe_known(page: str, url: str) -> str | None:
    """What a well-known page is and what to do about it; None for any other page."""
    text = " ".join(html.unescape(re.sub("<[^<>]*>", " ", page)).split()).lower()
    if "quota exceeded" in text or "too many users have viewed or downloaded" in text:
        return "Google Drive's notice that its download quota is exceeded; try again in a day"
    if "scan this file for viruses" in text or "virus scan warning" in text:
        return "Google Drive's page about a virus scan; download the file with a browser and set source to its path"
    if urlsplit(url).hostname == "accounts.google.com" or re.search(r"type=.?password", page):
        return "a login page; share the file with anyone who has the link, or set source to the path of a download"
    return None


def describe_unknown(page: str) -> str:
    """A web page by its title."""
    title = re.search(r"<title[^<>]*>(.*?)</title>", page[:10_000], re.IGNORECASE | re.DOTALL)
    called = f" ({' '.join(html.unescape(title[1]).split())[:80]!r})" if title else ""
    return f"a web page{called}; check the address"
