"Experiments are kept whole or not at all, go on from packed runs, and their page says what it is made of"
import json,os,shutil,subprocess,sys
from pathlib import Path
import pandas as pd, pytest
from test_house import _results

_tiny = '''# E1. A tiny experiment:
#   specnorm-compare --data ESC10 --recipe experiments/tiny.toml --out results-tiny
ways = ["none", "NA"]
baseline = "none"
fold = [1, 2]
runs = 1
duration = 0.5
arch = "small"
arch_options = {width = 4}
epochs = 1

[features]
n_mels = 16

[arms]
NA = {way = "global"}

[conditions]
NA = {keep = 0.2}
"1|4" = {silence = 0.25}
'''

def _at(root, monkeypatch):
    "results.py in a repository of its own, which trains in this process"
    m = _results()
    (root/'experiments').mkdir(parents=True, exist_ok=True)
    (root/'experiments'/'tiny.toml').write_text(_tiny)
    (root/'experiments'/'tried.csv').write_text('data,settings,seed,clips,accuracy\n'); (root/'experiments'/'tried.md').write_text('None.')
    from specnorm_fastai.cli import compare
    for k,v in dict(root=root, here=root/'experiments', status=lambda words: compare(words[3:])).items(): monkeypatch.setattr(m, k, v)
    return m

@pytest.fixture(scope='module')
def done(tmp_path_factory, synthetic):
    "The tiny experiment, run and kept without a stop"
    root = tmp_path_factory.mktemp('whole')
    with pytest.MonkeyPatch.context() as mp: _at(root, mp).main(['run', f'ESC10={synthetic}'])
    return root

def _files(d): return {p.relative_to(d).as_posix():p.read_bytes() for p in sorted(d.rglob('*')) if p.is_file()}

def _half(done, root):
    "What a kill in the middle leaves of results/tiny"
    out = root/'results'/'tiny'
    shutil.copytree(done/'results'/'tiny', out)
    for f in out.iterdir():
        if f.is_file() and f.name!='results.json': f.unlink()
    for f in sorted((out/'runs').iterdir())[::2]: f.unlink()
    info = json.loads((out/'results.json').read_text()); del info['runs']
    (out/'results.json').write_text(json.dumps(info))
    return out

def test_a_run_is_kept_whole_and_names_that_look_like_nothing_are_names(done, monkeypatch):
    m,d = _at(done, monkeypatch),done/'experiments'/'tiny'
    assert sorted(_files(d))==['analysis.csv','conditions-analysis.csv','results.csv','results.json'] and str(done) not in ''.join(p.read_text() for p in d.iterdir())
    text = (done/'experiments'/'RESULTS.md').read_text()
    assert text==m.text() and '| NA | 2 |' in text and '| nan |' not in text
    assert '| [tiny](#tiny) | E1 | 80, 32 of them tested | 2 | 4 |' in text and '80 clips of 8 classes, 32 of them tested; 2 folds' in text
    assert '*NA*: the loudest stretch of each clip, 0.2 s' in text and '*1|4*: the first and last part of each clip, 0.25 s together' in text and '\n| 1\\|4 | ' in text

def test_paused_runs_go_on_elsewhere_to_the_same_tables(done, synthetic, tmp_path, monkeypatch):
    m = _at(tmp_path/'a', monkeypatch)
    out = _half(done, tmp_path/'a')
    m.main(['pause', 'tiny'])
    file = m.here/'tiny'/'runs.tar.xz'
    first = file.read_bytes()
    held = m.contents(file)
    assert sorted(held)==['results.json',*(f'runs/{p.name}' for p in sorted((out/'runs').iterdir()))] and len(held)==3
    assert not any(str(p).encode() in v for v in held.values() for p in (tmp_path,done,synthetic,Path.home()))
    assert '| [tiny](tiny.toml) | E1 | 80 | 1 | 2 of 4 runs so far | 0 min |' in (m.here/'RESULTS.md').read_text()
    for f in (out/'runs').iterdir(): os.utime(f, (1,1))
    m.main(['pause', 'tiny', str(out)])
    assert file.read_bytes()==first  # no time, no owner
    shutil.copytree(m.here, tmp_path/'b'/'experiments')
    m = _at(tmp_path/'b', monkeypatch)
    m.main(['run', f'ESC10={synthetic}'])
    def tables(root): return [pd.read_csv(root/'experiments'/'tiny'/f, keep_default_na=False).drop(columns=['seconds','started'], errors='ignore') for f in ('results.csv','analysis.csv','conditions-analysis.csv')]
    for a,b in zip(tables(done), tables(tmp_path/'b')): pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert not (m.here/'tiny'/'runs.tar.xz').exists()
    new = {p.name for p in (tmp_path/'b'/'results'/'tiny'/'runs').iterdir()}-{Path(n).name for n in held}
    assert len(new)==2 and (tmp_path/'b'/'experiments'/'tiny'/'results.json').read_text()==(done/'experiments'/'tiny'/'results.json').read_text()

def test_some_folds_of_all_are_paused_and_named_without_a_total(done, tmp_path, monkeypatch):
    m = _at(tmp_path, monkeypatch)
    (m.here/'tiny.toml').write_text(_tiny.replace('fold = [1, 2]', 'fold = "all"'))
    out = _half(done, tmp_path)
    m.main(['pause', 'tiny'])
    assert '| 80 | 1 | 2 runs so far | 0 min |' in (m.here/'RESULTS.md').read_text()
    with pytest.raises(SystemExit, match=r'fold is \[1, 2\], the recipe says "all". The recipe.s command goes on'): m.main(['tiny', str(out)])

def test_pause_loses_no_run(done, tmp_path, monkeypatch):
    m = _at(tmp_path, monkeypatch)
    for args in (['pause', 'tiny'],['pause', 'tiny', str(tmp_path)],['pause', 'small']):
        with pytest.raises(SystemExit, match='expected a (folder that specnorm-compare wrote|recipe among)'): m.main(args)
    out = _half(done, tmp_path)
    m.main(['pause', 'tiny'])
    before = _files(m.here)
    one,other = sorted((out/'runs').iterdir())
    one.unlink()
    with pytest.raises(SystemExit, match='holds 1 run that .* has not'): m.main(['pause', 'tiny'])
    other.unlink()
    with pytest.raises(SystemExit, match='no run is finished yet'): m.main(['pause', 'tiny'])
    assert _files(m.here)==before
    (m.here/'tiny'/'runs.tar.xz').write_bytes(before['tiny/runs.tar.xz'][:200])
    with pytest.raises(SystemExit, match='runs.tar.xz: expected what results.py pause packed'): m.main([])
    (m.here/'tiny'/'runs.tar.xz').write_bytes(m.pack({'results.json':b'{}', '../runs/x.json':b''}))
    with pytest.raises(ValueError, match="expected results.json and runs/\\*.json, got '../runs/x.json'"): m.unpack(m.here/'tiny.toml', tmp_path/'new')

def _edit(out, f):
    info = json.loads((out/'results.json').read_text()); f(info)
    (out/'results.json').write_text(json.dumps(info))
def _less(file, n=1): pd.read_csv(file, keep_default_na=False).iloc[:-n].to_csv(file, index=False)

_bad = {
    'half-written': (lambda o: (o/'analysis.csv').unlink(), 'there is no analysis.csv, so the experiment is not done'),
    'no conditions': (lambda o: (o/'conditions-analysis.csv').unlink(), 'there is no conditions-analysis.csv'),
    'no results.json': (lambda o: (o/'results.json').unlink(), 'there is no results.json'),
    'cut': (lambda o: (o/'results.json').write_text('{"settings": {'), 'results.json: expected the results.json of an experiment'),
    'empty table': (lambda o: (o/'results.csv').write_text(''), 'results.csv: expected a table of specnorm-compare'),
    'column gone': (lambda o: pd.read_csv(o/'results.csv').drop(columns='n_valid').to_csv(o/'results.csv', index=False), "there is no 'n_valid'"),
    'a run less': (lambda o: _less(o/'results.csv'), '3 of 4 runs are done'),
    'a way less analyzed': (lambda o: _less(o/'analysis.csv'), 'analysis.csv: expected .* runs, got'),
    'other setting': (lambda o: _edit(o, lambda i: i['settings'].update(epochs=2)), 'is not of tiny.toml: epochs is 2, the recipe says 1'),
    'other arm': (lambda o: _edit(o, lambda i: i['settings']['arms']['NA'].update(way='item')), 'arms is .*"item".*, the recipe says .*"global"'),
    'other ways': (lambda o: _edit(o, lambda i: i['call'].update(ways=['none','global'])), 'ways is .* the recipe says'),
    'other baseline': (lambda o: _edit(o, lambda i: i['call'].update(baseline='NA')), 'baseline is "NA", the recipe says "none"'),
    'one fold of two': (lambda o: _edit(o, lambda i: i['call'].update(fold=[1], folds=['1'])), 'fold is .1., the recipe says'),
    'clips to predict': (lambda o: _edit(o, lambda i: i['call'].update(test_data='/x/other')), 'test_data is "other", the recipe says null'),
    'a run more': (lambda o: pd.read_csv(o/'results.csv', keep_default_na=False).assign(seed=7).to_csv(o/'results.csv', index=False), 'holds 4 runs that tiny.toml does not have, such as none, 1, 7')}

@pytest.mark.parametrize('name', _bad)
def test_what_is_not_a_whole_experiment_of_the_recipe_is_not_kept(done, tmp_path, monkeypatch, name):
    spoil,says = _bad[name]
    shutil.copytree(done/'experiments', tmp_path/'experiments')
    shutil.copytree(done/'results', tmp_path/'results')
    m = _at(tmp_path, monkeypatch)
    before = _files(m.here)
    spoil(tmp_path/'results'/'tiny')
    with pytest.raises(SystemExit, match=says): m.main([str(m.here/'tiny.toml'), str(tmp_path/'results'/'tiny')])
    assert _files(m.here)==before

def test_only_recipes_of_experiments_are_kept_and_old_conditions_go(done, tmp_path, monkeypatch):
    shutil.copytree(done/'experiments', tmp_path/'experiments')
    m = _at(tmp_path, monkeypatch)
    before,out = _files(m.here),str(done/'results'/'tiny')
    (tmp_path/'tiny.toml').write_text('# Another one')
    for r in ('other.toml',m.here/'tiny.csv',tmp_path/'tiny.toml'):
        with pytest.raises(SystemExit, match='expected a recipe among'): m.main([str(r), out])
    with pytest.raises(SystemExit, match='expected a folder that specnorm-compare wrote, there is none'): m.main(['tiny', str(tmp_path/'no')])
    assert _files(m.here)==before and not (m.here/'other').exists()
    m.main(['experiments/tiny.toml', out])
    assert _files(m.here)==before
    shutil.copytree(done/'results'/'tiny', tmp_path/'plain')
    (m.here/'tiny.toml').write_text(_tiny[:_tiny.index('[conditions]')])  # the same without conditions
    _edit(tmp_path/'plain', lambda i: i['settings'].update(conditions={}))
    m.main(['tiny', str(tmp_path/'plain')])
    assert not (m.here/'tiny'/'conditions-analysis.csv').exists() and 'under other conditions, accuracy' not in (m.here/'RESULTS.md').read_text()

def test_a_recipe_that_fails_is_told_of_and_not_kept(tmp_path, monkeypatch):
    "The command as it is run, in a process: its status comes back, without a traceback"
    m = _at(tmp_path/'repo', monkeypatch)
    (tmp_path/'empty').mkdir()
    monkeypatch.chdir(tmp_path)
    assert m.command(m.here/'tiny.toml', dict(ESC10='x'), tmp_path)[:2]==[sys.executable,'-c']
    r = []
    monkeypatch.setattr(m, 'status', lambda words: r.append((words,subprocess.run(words, cwd=m.root, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH':str(Path(__file__).parents[1])}))) or r[-1][1].returncode)
    with pytest.raises(SystemExit, match='Failed: tiny'): m.main(['run', 'ESC10=empty'])
    (words,p), = r
    assert p.returncode==1 and 'Traceback' not in p.stderr and 'specnorm-compare: error' in p.stderr
    assert str(tmp_path/'empty') in words and not (m.here/'tiny').exists()  # a folder of the user's, not of the repository

def test_a_stop_stops(tmp_path, monkeypatch, capsys):
    m = _at(tmp_path, monkeypatch)
    (m.here/'second.toml').write_text(_tiny.replace('E1', 'E2'))
    ran = []
    monkeypatch.setattr(m, 'status', lambda words: ran.append(words) or 130)
    with pytest.raises(SystemExit) as e: m.main(['run', f'ESC10={tmp_path}'])
    assert e.value.code==130 and len(ran)==1 and 'pause tiny' in capsys.readouterr().out

def test_help_is_help_and_nonsense_is_not(monkeypatch, tmp_path, capsys):
    m = _at(tmp_path, monkeypatch)
    for args in (['--help'],['-h'],['run','--help']): m.main(args)
    assert capsys.readouterr().out.count('python tools/results.py pause NAME')==3
    for args in (['pause'],['one'],['a','b','c']):
        with pytest.raises(SystemExit, match='python tools/results.py run'): m.main(args)

def test_the_page_lists_what_was_not_run(tmp_path, monkeypatch):
    m = _at(tmp_path, monkeypatch)
    m.main([])
    text = (m.here/'RESULTS.md').read_text()
    assert '| [tiny](tiny.toml) | E1 | | | not run yet | |' in text and 'Together 0.0 hours: the wall times' in text
    assert 'python tools/datasets.py esc10' in text and 'CC BY-SA 4.0' in text and '| db_max | dB below' in text and 'runs.tar.xz' not in text

def test_the_page_answers_each_question_before_the_tables():
    text = (_results().here/'RESULTS.md').read_text()
    at = [text.index(f'\n## E{i}: ') for i in range(1,6)]
    assert at==sorted(at) and at[-1]<text.index('\n## How to read the tables')<text.index('\n## The experiments')<text.index('\n## The data') and '{' not in text[:at[-1]]

def test_the_articles_runs_have_the_means_that_it_prints_and_decide_nothing():
    table = _results().article()
    rows = {r[1]:r for r in ([c.strip() for c in l.split('|')] for l in table.splitlines()[2:])}
    assert {k:r[3] for k,r in rows.items()}=={'as it is':'71.10', 'unit variance, global':'73.15', 'unit variance, per frequency':'71.45'}
    assert rows['unit variance, global'][5:9]==['+2.05','+0.2 to +3.9','0.034','0.067'] and rows['as it is'][5:9]==['']*4
