"""How Sphinx builds these pages: Markdown, its own theme, nothing fetched from anywhere."""

project = "duckdb_mistral"
author = "the authors of duckdb_mistral"
copyright = "the authors of duckdb_mistral; Apache License 2.0"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Mistral's Batch API as DuckDB table functions",
    "fixed_sidebar": True,
    "page_width": "1080px",
    "show_powered_by": False,
}
html_show_sourcelink = False
html_copy_source = False
myst_heading_anchors = 3
#: Session output is no language, and DuckDB's SQL has words that Pygments does not know.
highlight_language = "text"
suppress_warnings = ["misc.highlighting_failure"]
