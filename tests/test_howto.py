"The how-to pages: links lead somewhere, each asks what it answers, and nothing of the machine is stored in them"
import ast,json,re
from pathlib import Path
import pytest

nbs = Path(__file__).parent.parent/'nbs'
pages = sorted((nbs/'howto').glob('*.ipynb'))

def _cells(page, kind): return [c for c in json.loads(page.read_text(encoding='utf8'))['cells'] if c['cell_type']==kind]
def _prose(page): return re.sub(r'`[^`]*`', '', re.sub(r'(?s)```.*?```', '', '\n'.join(''.join(c['source']) for c in _cells(page, 'markdown'))))

def _headings(file):
    "The anchors of `file`'s headings: of a page, or of a Markdown file"
    text = _prose(file) if file.suffix=='.ipynb' else file.read_text(encoding='utf8')
    return {re.sub(r'[^\w -]', '', h.lower()).strip().replace(' ', '-') for h in re.findall(r'(?m)^#+ (.+)', text)}

def test_there_are_pages(): assert len(pages)>=12 and {'share_model','train_on_few_clips'}<=set(p.stem for p in pages)

@pytest.mark.parametrize('page', pages, ids=lambda p: p.stem)
def test_links_lead_to_a_notebook(page):
    links = [l for l in re.findall(r'\]\(([^)\s]+)\)', _prose(page)) if not l.startswith('https://')]
    assert links, 'a page that leads nowhere'
    for l in links:
        file,_,place = l.partition('#')
        to = (page.parent/file).resolve() if file else page
        assert to.is_file(), f'{page.name}: {l}'
        if place: assert place in _headings(to), f'{page.name}: {l}: no such heading'

@pytest.mark.parametrize('page', pages, ids=lambda p: p.stem)
def test_a_page_asks_what_it_answers(page):
    title,question = re.match(r'# (.+)\n\n> (.+)', ''.join(_cells(page, 'markdown')[0]['source'])).groups()
    assert question.rstrip().endswith('?'), title

@pytest.mark.parametrize('page', pages, ids=lambda p: p.stem)
def test_a_page_was_run_and_tests_what_it_says(page):
    code = _cells(page, 'code')
    assert any(c['outputs'] for c in code) and not any(o['output_type']=='error' for c in code for o in c['outputs'])
    source = '\n'.join(''.join(c['source']) for c in code)
    assert len(re.findall(r'\b(?:test_eq|test_close|assert)\b', source))>=4
    assert 'expect_fail' in source or page.stem=='many_gpus', 'no error that a reader will meet'  # there it is that of other processes

@pytest.mark.parametrize('page', pages, ids=lambda p: p.stem)
def test_outputs_name_no_folder_of_the_machine(page):
    said = json.dumps([o for c in _cells(page, 'code') for o in c['outputs'] if o['output_type']!='display_data'])
    assert not re.search(r'/(?:tmp|home|root|work|Users)/', said)

def _names(code):
    "Names that a cell makes, and those that it reads"
    t = ast.parse('\n'.join('' if l.startswith(('%','!')) else l for l in code.split('\n')))
    made = {(a.asname or a.name).partition('.')[0] for o in ast.walk(t) if isinstance(o, (ast.Import,ast.ImportFrom)) for a in o.names}
    made |= {o.name for o in ast.walk(t) if isinstance(o, (ast.FunctionDef,ast.ClassDef))} | {o.id for o in ast.walk(t) if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store)}
    return made,{o.id for o in ast.walk(t) if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Load)}

@pytest.mark.parametrize('page', pages, ids=lambda p: p.stem)
def test_what_a_reader_sees_runs_as_pasted(page):
    "No cell uses a name that only a hidden one makes"
    import fastai.vision.all,specnorm_fastai.all
    cells = [''.join(c['source']) for c in _cells(page, 'code')]
    hidden,shown = ([_names(c) for c in cells if c.startswith('#| hide')==h] for h in (True,False))
    lost = {n for m,_ in hidden for n in m} - set(vars(fastai.vision.all)) - set(vars(specnorm_fastai.all)) - {n for m,_ in shown for n in m}
    assert not lost&{n for _,r in shown for n in r}
