"The site of `make docs`: every page in a browser, every link, every public name, the search"
import functools,importlib.util,re,sys,threading
from http.server import SimpleHTTPRequestHandler,ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent))
from browser import Page,need_chromium

pytest.importorskip('mkdocs', reason="the extra `docs` is not installed")
pytest.importorskip('material', reason="the extra `docs` is not installed")

@pytest.fixture(scope='module')
def docs():
    spec = importlib.util.spec_from_file_location('docs', root/'tools'/'docs.py')
    m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
    return m

@pytest.fixture(scope='module')
def site(docs, tmp_path_factory):
    "The folder of a site that was just built"
    d = tmp_path_factory.mktemp('site')
    assert docs.build(d/'site', d/'stage')==[]
    return d/'site'

class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *a): pass

@pytest.fixture(scope='module')
def url(site):
    s = ThreadingHTTPServer(('127.0.0.1',0), functools.partial(_Quiet, directory=str(site)))
    t = threading.Thread(target=s.serve_forever, daemon=True); t.start()
    yield f'http://127.0.0.1:{s.server_port}/'
    s.shutdown(); s.server_close(); t.join()

def _pages(site): return sorted(p.relative_to(site).as_posix() for p in site.rglob('*.html') if p.name!='404.html')

def test_every_notebook_and_text_has_a_page(docs, site):
    s = docs.Site(site.parent/'other')
    assert len(s.pages)>=32 and all((site/p).with_suffix('.html').is_file() for p in s.pages.values())
    nbs = {p.relative_to(root).as_posix() for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts and '_proc' not in p.parts}
    assert nbs<=set(s.pages)

def test_every_public_name_has_an_entry_with_its_signature_and_source(docs, site):
    "Of `specnorm_fastai.all`, and of the modules that are imported by name"
    import inspect
    import specnorm_fastai.all as a
    syms,n = docs.symbols(),0
    names = {s.name for here in syms.values() for s in here.values()}
    ours = {k for k,v in vars(a).items() if not k.startswith('_') and getattr(v, '__module__', '').startswith('specnorm_fastai.') and not inspect.ismodule(v)}
    assert ours<=names, ours-names
    for mod,here in syms.items():
        page = (site/f'{mod}.html').read_text(); listing = (site/'source'/f'{mod}.html').read_text()
        lines = (root/'specnorm_fastai'/f'{mod}.py').read_text().splitlines()
        for s in here.values():
            assert f'id="{s.anchor}"' in page, (mod, s.name)
            assert re.search(rf'\b{s.name.rpartition(".")[2]}\b', '\n'.join(lines[s.line-1:s.line+2])), (mod, s.name, s.line)
            assert f'href="source/{mod}.html#L-{s.line}"' in page and f'id="L-{s.line}"' in listing, (mod, s.name)
            n += 1
    assert n>=300

def test_what_leads_nowhere_is_found(docs, tmp_path):
    "A page that is missing, an anchor, a picture without words, a script of another host"
    (tmp_path/'b.html').write_text('<h1 id="here">b</h1>')
    (tmp_path/'a.html').write_text('<a href="b.html#here">1</a><a href="b.html#gone">2</a><a href="c.html">3</a><img src="x.png"><script src="https://example.org/x.js"></script><a href="https://example.org">4</a>')
    bad = docs.check(tmp_path)
    assert len(bad)==5 and [any(w in b for b in bad) for w in ('b.html#gone: no such anchor','c.html: no such file','x.png: no such file','x.png has no words','another host')]==[True]*5, bad

def test_a_broken_link_in_a_notebook_fails_the_build(docs, tmp_path):
    s = docs.Site(tmp_path/'stage')
    text = s.links('[a](00_core.ipynb#x) [b](nowhere.ipynb) `[c](no.md)` [d](https://e.org/f) [g](../Makefile)', 'nbs/40_transforms.ipynb', 'transforms.md')
    assert '[a](core.md#x)' in text and '`[c](no.md)`' in text and '(https://e.org/f)' in text and f'({s.repo}/Makefile)' in text
    assert s.problems==['nbs/40_transforms.ipynb: link to nowhere.ipynb: no such file']

def test_names_in_text_lead_to_their_entries_and_formulas_are_mathml(site):
    page = (site/'transforms.html').read_text()
    assert re.search(r'<a class="sym" href="core.html#audiospectrogram"><code>AudioSpectrogram</code></a>', page)
    assert 'class="sym" href="../stats.html#collect_stats"' in (site/'tutorials'/'normalizing_spectrograms.html').read_text()
    assert 'mask: expected one of ..., got ...' in page  # what it raises, from the code
    assert '<math' in (site/'recorder.html').read_text() and not [p for p in _pages(site) if 'class="arithmatex"' in (site/p).read_text()]

def test_each_page_in_a_browser(site, url):
    "At both widths: no error of the console, nothing asked of another host, nothing wider than the window"
    need_chromium()
    bad,pages = [],[n for n in _pages(site) if not n.startswith('source/') or n=='source/core.html']  # one listing for all: they differ in their text only
    with Page(1280, 900) as p:
        for n in pages:
            p.resize(1280, 844); p.open(url+n)
            for width in (1280,390):
                p.resize(width, 844)
                if (w:=p.js('document.documentElement.scrollWidth'))>width: bad.append(f'{n}: {w} pixels wide in a window of {width}')
            if (gone:=p.js("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")): bad.append(f'{n}: pictures {gone}')
            if p.errors: bad.append(f'{n}: {p.errors}'); p.errors.clear()
        hosts = {urlsplit(r).netloc for r in p.requests if not r.startswith(('data:','about:','blob:'))}
        assert not bad and not p.failed and hosts=={urlsplit(url).netloc}, (bad, p.failed, hosts)

def test_waiting_goes_on_on_the_page_that_is_navigated_to(tmp_path):
    need_chromium()
    for n in 'ab': (tmp_path/f'{n}.html').write_text(f'<p>{n}</p>')
    leave = "location.href = 'b.html', new Promise(() => {})"  # answers nothing before the page is left
    with Page() as p:
        p.open(tmp_path/'a.html')
        with pytest.raises(RuntimeError, match='navigated or closed'): p.js(leave)
        p.open(tmp_path/'a.html')
        p.wait(f"location.pathname.endsWith('/b.html') || ({leave})")
        assert p.js("document.querySelector('p').innerText")=='b'
        with pytest.raises(RuntimeError, match='nothing is not defined'): p.wait('nothing')

@pytest.mark.parametrize('width', [1280,390])
def test_search_finds_a_name(url, width):
    need_chromium()
    with Page(width, 844) as p:
        p.open(url+'index.html')
        p.js("document.querySelector('label[for=__search]').click()") if width<600 else None
        p.js("document.querySelector('.md-search__input').focus()")
        p.cdp('Input.insertText', text='SpecNormalize')
        p.wait("document.querySelectorAll('.md-search-result__link').length>0")
        first = p.js("[...document.querySelectorAll('.md-search-result__link')].slice(0,5).map(a => a.href)")
        assert any(re.search(r'/transforms\.html', u) for u in first), first
        p.js("[...document.querySelectorAll('.md-search-result__link')].find(a => a.href.includes('/transforms.html')).click()")
        p.wait("location.pathname.endsWith('/transforms.html') && document.readyState=='complete'")
        assert 'SpecNormalize' in p.js("document.querySelector('article').innerText") and not p.errors
