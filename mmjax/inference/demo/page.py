"""`mmjax demo`: a page, served on this machine, to search pictures and sounds by typing, by a picture, by voice; and
to have pictures captioned and to talk, where the model writes.

It is a gradio page (extra `page`). Nothing leaves the machine: no analytics, no fonts or scripts of others
(`server.Policy` forbids the browser to ask for any). Uploads are in a folder that is deleted with the program, and no
other files can be queries (`uploads`).
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from mmjax.data.decoding.sounds import lasting
from mmjax.data.kinds import kinds_of
from mmjax.data.transforms.input import Input
from mmjax.data.transforms.spans import partly, seconds
from mmjax.errors import UserError
from mmjax.evaluate.report.markup import Markup, join, short, tag
from mmjax.experiment.graph import build
from mmjax.inference.demo import widgets
from mmjax.inference.demo.in_part import hears, in_part
from mmjax.inference.demo.search import Index, Item, Place, checked, folder, index, many, own, reason
from mmjax.inference.demo.server import HOST, Policy, ended, ended_by_signals, free_port, media_routes
from mmjax.inference.demo.uploads import LARGEST, Gate, Uploads, received
from mmjax.inference.demo.writing import add_tabs, speakers
from mmjax.inference.model import Model
from mmjax.interop.resolve import resolve
from mmjax.runtime.compilation_cache import use_compilation_cache
from mmjax.runtime.counts import noun

MOST = 2 * max(widgets.PICTURES, widgets.OTHERS)
LONGEST = 10_000  # characters of a query: no model reads more
LISTED = 100  # of files that could not be used, by name
SIMILAR = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-row]');
  if (button) {
    trigger('click', {modality: button.dataset.modality, row: Number(button.dataset.row)});
    document.getElementById('results').scrollIntoView({behavior: 'smooth', block: 'start'});
  }
});
element.addEventListener('play', event => {
  for (const other of element.querySelectorAll('audio')) if (other !== event.target) other.pause();
}, true);
"""
STYLE = Path(__file__).with_name("page.css")


def serve(
    source: str,
    where: str | None = None,
    *,
    step: int | None = None,
    code: Any = None,
    port: int | None = None,
    share: bool = False,
    console: Console | None = None,
    wait: bool = True,
) -> Any:
    """Embeds the folder `where`, or the model's own test data, and serves the page until Ctrl-C, SIGTERM or SIGHUP.

    source, step, code: as in `mmjax.load`. port: None: the first free one from `PORT` on. share: a public link too.
    wait: False returns gradio's Blocks, served by a thread of its own; `close()` ends it.

    Raises:
        UserError: gradio isn't installed, the port is in use, there is nothing to search, or the model can't search it.
    """
    console = console or Console(highlight=False)
    say = partial(console.print, soft_wrap=True, markup=False)
    with ended_by_signals() if wait else nullcontext():
        kept = _kept()
        _gradio()
        chosen = free_port(port)  # checked before the folder is embedded
        found = _found(source, where, step, code, say, console)
        page = build_page(found, kept)
        try:
            _launch(page, found, chosen, share)
            say(f"the page is at http://{HOST}:{chosen} (Ctrl-C ends it)")
            if share:
                link, lacking = page.share_url, "a public link could not be made: no network?"
                say(f"and, for whoever has the link, at {link}" if link else lacking)
            while wait:
                time.sleep(1)
        except KeyboardInterrupt:
            say("\nthe page ends")  # said at once: the rest takes a moment
        finally:
            if wait:
                ended(page)
    return page


def _found(
    source: str, where: str | None, step: int | None, code: Any, say: Callable[[str], None], console: Console
) -> Index:
    """The index to be searched. Each part that takes seconds is announced when it begins."""
    say(f"reading {source}")
    if where is not None:
        checked(where)  # before the model is read
    use_compilation_cache()
    bundle = resolve(source, step=step, code=code, say=say)
    say("looking through its own test data" if where is None else f"looking through {where}")
    kinds = kinds_of(build(bundle.config).data.transforms)
    try:
        found = index(bundle, own(bundle, say) if where is None else folder(where, kinds), console)
    except UserError as error:
        model = Model(bundle)
        if where is not None or not speakers(model):
            raise
        say(f"nothing can be searched ({error}): the page is for what the model writes")
        return Index(model, Place("", "", []), {}, {}, [])
    say(f"{_counted(found)} in {found.place.name}")
    for name, why in found.bad[:LISTED]:
        say(f"  left out: {name}: {why}")
    for modality in dict.fromkeys((*found.items, *found.queries)):
        if most := hears(found.model, modality):
            say(f"of a {noun(modality)} the model hears the first {seconds(most)}")
    return found


def _gradio() -> Any:
    """Imports gradio, after turning its analytics off."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # for packages that gradio imports
    try:
        import gradio
    except ImportError as error:
        raise UserError(f'the page needs gradio ({error}): pip install "mmjax[page]"') from error
    return gradio


def _launch(page: Any, found: Index, port: int, share: bool) -> None:
    gradio = _gradio()
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    middleware = [Middleware(Policy), Middleware(Gate, page.uploads, lambda: page.share_url)]
    if not share:  # a foreign page whose host name resolves to this machine can read nothing
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]))
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
    page.uploads.keep_swept()
    try:
        page.launch(
            server_name=HOST,
            server_port=port,
            share=share,
            prevent_thread_lock=True,
            quiet=True,
            inbrowser=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            run_history=False,
            max_file_size=LARGEST,
            enable_monitoring=False,
            footer_links=[],
            theme=gradio.themes.Base(font=fonts, font_mono=["ui-monospace", "DejaVu Sans Mono", "monospace"]),
            css_paths=[STYLE],
            app_kwargs={"routes": media_routes(found), "middleware": middleware, "openapi_url": None},
        )
    except OSError as error:  # another process took the port while the folder was embedded
        raise UserError(f"port {port} is in use since: --port N names another") from error


def _kept() -> tempfile.TemporaryDirectory[str]:
    """The folder of queries, as long as the page exists. It is created before gradio is imported, which creates folders
    elsewhere otherwise.
    """
    kept = tempfile.TemporaryDirectory(prefix="mmjax-demo-")
    os.environ["GRADIO_TEMP_DIR"] = kept.name
    return kept


def build_page(found: Index, kept: tempfile.TemporaryDirectory[str] | None = None) -> Any:
    """gradio's Blocks: the inputs, in tabs, and below them the results. kept: the folder of queries."""
    kept = kept or _kept()
    gr = _gradio()
    uploads = Uploads(Path(kept.name))

    with gr.Blocks(title="mmjax demo", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(_safe(head(found)), js_on_load=None)
        inputs: dict[str, Any] = {}
        tabs: dict[str, Any] = {}
        with gr.Tabs():
            named = [widgets.tab(modality, found.kind(modality)) for modality in found.queries]
            for i, (modality, name) in enumerate(zip(found.queries, named, strict=True)):
                first = name not in named[:i]
                with gr.Tab(name if named.count(name) == 1 else modality.capitalize(), id=modality) as tabs[modality]:
                    inputs[modality] = widgets.taker(gr, modality, found.kind(modality), first)
            writing = add_tabs(gr, found.model, uploads.folder)
        start = answered(found, next(iter(inputs)), None) if inputs else join()
        results = gr.HTML(_safe(start), elem_id="results", js_on_load=SIMILAR)
        for modality, (component, events) in inputs.items():
            shared: dict[str, Any] = dict(
                inputs=component,
                outputs=results,
                preprocess=found.kind(modality).words,  # files as they were given, not as gradio would write them anew
            )
            answer = _answer(found, modality, uploads.folder)
            gr.on(events, answer, show_progress="minimal", api_name=modality, **shared)
            # The results belong to the open tab: no error of another tab stays there.
            opened = _answer(found, modality, uploads.folder, opened=True)
            gr.on([tabs[modality].select], opened, show_progress="hidden", api_visibility="private", **shared)

        if writing:  # below what is written stands nothing of a search
            emptied: dict[str, Any] = dict(outputs=results, show_progress="hidden", api_visibility="private")
            gr.on([one.select for one in writing], lambda: "", **emptied)

        def similar(event: Any) -> str:
            return _safe(like(found, event.modality, event.row))

        similar.__annotations__["event"] = gr.EventData  # gradio reads the annotation to pass the event
        results.click(similar, outputs=results, show_progress="minimal", api_visibility="private")
    page.kept, page.uploads, page.found = kept, uploads, found
    return page


def hint(found: Index, modality: str) -> str:
    """Says what to do in a tab; of sounds, how much of one the model hears too."""
    most = hears(found.model, modality)
    heard = "" if most is None else f" Its first {seconds(most)} {'is' if most == 1 else 'are'} heard."
    return widgets.what_to_do(modality, found.kind(modality)) + heard


def _answer(found: Index, modality: str, uploads: Path, opened: bool = False) -> Callable[[Any], str]:
    """A function from a query to the page's results. opened: called as its tab was opened; an uploaded file may be
    gone.
    """

    def answer(query: Any) -> str:
        if not found.kind(modality).words and query is not None:
            try:
                query = received(uploads, query)
            except UserError as error:
                if not opened:
                    return _safe(wrong(error))
                query = None
        return _safe(answered(found, modality, query))

    return answer


def answered(found: Index, modality: str, query: Any) -> Markup:
    """Returns what is found for a text, or the bytes of a picture or sound; a hint where nothing is asked, and for what
    can't be used what is wrong with it."""
    kind = found.kind(modality)
    if not isinstance(query, str if kind.words else bytes) or not query.strip():
        return _said(hint(found, modality), first_shown(found))
    query = query[:LONGEST] if isinstance(query, str) else query
    try:
        hits = found.search(modality, query, MOST)
        part = in_part(found.model, modality, query)
    except UserError as error:
        return wrong(error)
    return _said(
        f"Nearest to {widgets.asked(modality, kind, query)}" + (f" ({part})" if part else ""), shown(found, hits)
    )


def wrong(error: UserError) -> Markup:
    """The message for a query that can't be used."""
    return _said(f"This can't be searched by: {reason(error)}", kind="wrong")


def like(found: Index, modality: str, row: Any) -> Markup:
    """The results nearest to a result that was clicked: itself comes first."""
    items = found.items.get(modality, [])
    if not isinstance(row, int) or not 0 <= row < len(items):
        return _said("That isn't there any more: load the page again.", kind="wrong")
    hits = found.nearest(found.vectors[modality][row], MOST)
    return _said(f"Nearest to {short(items[row].name)}", shown(found, hits))


def first_shown(found: Index) -> Markup:
    """The first items, shown before any query."""
    return shown(
        found, {modality: [(row, None) for row in range(len(items))] for modality, items in found.items.items()}
    )


def head(found: Index) -> Markup:
    """The head of the page: the collection, the model, and the items that were left out."""
    title = f"Search {_counted(found, bad=False)}" if found.items else "Written by a model"
    below = f"{found.place.name} · by {found.model.source}" if found.items else found.model.source
    parts: list[Any] = [tag("h1", title), tag("p", below, class_="soft")]
    if found.bad:
        rows = [tag("li", tag("b", name), f": {why}") for name, why in found.bad[:LISTED]]
        if len(found.bad) > LISTED:
            rows.append(tag("li", f"and {len(found.bad) - LISTED:,} more"))
        parts.append(tag("details", tag("summary", f"{_left_out(found)}"), tag("ul", rows), class_="bad"))
    return tag("header", parts, class_="head")


def _counted(found: Index, bad: bool = True) -> str:
    """`1,204 pictures and 1 sound; 3 files could not be read`."""
    parts = [many(modality, len(items)) for modality, items in found.items.items()]
    return " and ".join(parts) + (f"; {_left_out(found)}" if bad and found.bad else "")


def _left_out(found: Index) -> str:
    return f"{len(found.bad):,} file{'s' if len(found.bad) > 1 else ''} could not be read"


def _said(text: str, below: Markup | None = None, kind: str = "note") -> Markup:
    return join(tag("p", text, class_=kind, role="status"), below)


def shown(found: Index, hits: Mapping[str, list[tuple[int, float | None]]] | Mapping[str, Any]) -> Markup:
    """Pictures in rows and sounds in a list, with their names, scores, and a button to search by each."""
    parts = []
    for modality, rows in hits.items():
        kind = found.kind(modality)
        rows = rows[: widgets.most_shown(kind) * (2 if len(hits) == 1 else 1)]
        most = hears(found.model, modality)
        items = [_hit(found.items[modality][row], kind, row, score, most) for row, score in rows]
        there = tag("h2", f"{noun(modality)}s".capitalize()) if len(found.items) > 1 else None
        parts.append(tag("section", there, tag("ol", items, class_=f"hits {widgets.shown_class(kind)}")))
    return join(parts)


def _hit(item: Item, kind: type[Input], row: int, score: float | None, most: float | None) -> Markup:
    """most: seconds of a sound that the model hears; None: all."""
    part = partly(most, _lasting(item)) if most is not None else None
    media = widgets.item(item.modality, kind, item.name, f"media/{item.modality}/{row}")
    return tag(
        "li",
        media,
        tag("span", short(item.name, 80), class_="name", title=item.name),
        None if score is None else tag("span", f"{score:.3f}", class_="score", title="cosine of the two embeddings"),
        tag("button", "Similar", type="button", class_="like", data_modality=item.modality, data_row=row),
        None if part is None else tag("span", part, class_="part"),
    )


def _lasting(item: Item) -> float | None:
    """The duration of a sound in seconds, by its header."""
    if item.path is not None:
        return lasting(item.path) if item.path.is_file() else None
    return lasting(content) if (content := item.read()) is not None else None


def _safe(markup: Markup) -> str:
    """Escapes what gradio's templates would fill in: `${...}` and `{{...}}` are characters of a name like any other."""
    return str(markup).replace("$", "&#36;").replace("{", "&#123;")
