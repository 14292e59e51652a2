"The how-to pages: links lead somewhere, each asks what it answers, and nothing of the machine is stored in them"
import json,re
from pathlib import Path
import pytest

nbs = Path(__file__).parent.parent/'nbs'
pages = sorted((nbs/'howto').glob('*.ipynb'))

def _cells(page, kind): return [c for c in json.loads(page.read_text(encoding='utf8'))['cells'] if c['cell_type']==kind]
def _prose(page): return re.sub(r'`[^`]*`', '', re.sub(r'(?s)```.*?```', '', '\n'.join(''.join(c['source']) for c in _cells(page, 'markdown'))))

def test_there_are_pages(): assert len(pages)>=10

@pytest.mark.parametrize('page', pages, ids=lambda p: p.stem)
def test_links_lead_to_a_notebook(page):
    links = [l for l in re.findall(r'\]\(([^)\s]+)\)', _prose(page)) if not l.startswith('https://')]
    assert links, 'a page that leads nowhere'
    for l in links: assert (page.parent/l).resolve().is_file(), f'{page.name}: {l}'

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
