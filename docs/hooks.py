"""MkDocs hook: links from a page to files outside docs/ become paths, or addresses if the site has a repo_url."""

import pathlib
import posixpath
import re

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\./[^)\s]+)\)")


def on_page_markdown(markdown, page, config, **_):
    """Returns the text of a page with its outside links changed."""
    root = pathlib.Path(config.config_file_path).parent
    docs = pathlib.Path(config.docs_dir).relative_to(root).as_posix()

    def change(match):
        text, target = match.groups()
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(docs, posixpath.dirname(page.file.src_uri), path))
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path}{'#' * bool(anchor)}{anchor})"
        path = path.removesuffix("/README.md")
        return f"`{path}`" if path.endswith(text) or path.removesuffix(".py").endswith(text) else f"{text} (`{path}`)"

    return LINK.sub(change, markdown)
