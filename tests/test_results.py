"Experiments are kept whole or not at all, go on from packed runs, and their page says what it is made of"
import json,os,re,shutil,subprocess,sys
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
    out = root/'results-recipes'/'tiny'
    shutil.copytree(done/'results-recipes'/'tiny', out)
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
    new = {p.name for p in (tmp_path/'b'/'results-recipes'/'tiny'/'runs').iterdir()}-{Path(n).name for n in held}
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
    with pytest.raises(SystemExit, match='runs: expected finished runs, there is none'): m.main(['pause', 'tiny'])
    assert _files(m.here)==before
    (m.here/'tiny'/'runs.tar.xz').write_bytes(before['tiny/runs.tar.xz'][:200])
    with pytest.raises(SystemExit, match='runs.tar.xz: expected what results.py pause packed'): m.main([])
    (m.here/'tiny'/'runs.tar.xz').write_bytes(m.pack({'results.json':b'{}', '../runs/x.json':b''}))
    with pytest.raises(ValueError, match="expected results.json and runs/\\*.json, got '../runs/x.json'"): m.unpack(m.here/'tiny.toml', tmp_path/'new')

def _edit(out, f):
    info = json.loads((out/'results.json').read_text()); f(info)
    (out/'results.json').write_text(json.dumps(info))
def _settle(out, **kw):
    "Make the runs of a folder those of other settings"
    from specnorm_fastai.compare import _digest
    _edit(out, lambda i: i['settings'].update(kw))
    s = json.loads((out/'results.json').read_text())['settings']
    for f in (out/'runs').iterdir():
        d = json.loads(f.read_text())
        f.write_text(json.dumps({**d, 'settings':_digest(s, d['row']['way']), 'conditions':{k:d['conditions'][k] for k in s['conditions']}}))
def _row(f, **kw):
    d = json.loads(f.read_text()); d['row'] = {k:v for k,v in {**d['row'], **kw}.items() if v is not None}
    f.write_text(json.dumps(d))
def _cell(file, column, value, row=0):
    df = pd.read_csv(file, keep_default_na=False).astype({column:object}); df.loc[row,column] = value
    df.to_csv(file, index=False)
def _less(file, n=1): pd.read_csv(file, keep_default_na=False).iloc[:-n].to_csv(file, index=False)

_bad = {
    'half-written': (lambda o: (o/'analysis.csv').unlink(), 'there is no analysis.csv, so the experiment is not done'),
    'no conditions': (lambda o: (o/'conditions-analysis.csv').unlink(), 'there is no conditions-analysis.csv'),
    'no results.json': (lambda o: (o/'results.json').unlink(), 'there is no results.json'),
    'cut': (lambda o: (o/'results.json').write_text('{"settings": {'), 'results.json: expected the results.json of an experiment'),
    'empty table': (lambda o: (o/'results.csv').write_text(''), 'results.csv: expected a table'),
    'column gone': (lambda o: pd.read_csv(o/'results.csv').drop(columns='n_valid').to_csv(o/'results.csv', index=False), "there is no 'n_valid'"),
    'a run less': (lambda o: _less(o/'results.csv'), '3 of 4 runs are done'),
    'a way less analyzed': (lambda o: _less(o/'analysis.csv'), 'analysis.csv: expected .* runs, got'),
    'other setting': (lambda o: _edit(o, lambda i: i['settings'].update(epochs=2)), 'is not of tiny.toml: epochs is 2, the recipe says 1'),
    'other arm': (lambda o: _edit(o, lambda i: i['settings']['arms']['NA'].update(way='item')), 'arms is .*"item".*, the recipe says .*"global"'),
    'other ways': (lambda o: _edit(o, lambda i: i['call'].update(ways=['none','global'])), 'ways is .* the recipe says'),
    'other baseline': (lambda o: _edit(o, lambda i: i['call'].update(baseline='NA')), 'baseline is "NA", the recipe says "none"'),
    'one fold of two': (lambda o: _edit(o, lambda i: i['call'].update(fold=[1], folds=['1'])), 'fold is .1., the recipe says'),
    'clips to predict': (lambda o: _edit(o, lambda i: i['call'].update(test_data='/x/other')), 'test_data is "other", the recipe says null'),
    'nothing': (lambda o: (o/'results.json').write_text('{}'), 'results.json: expected the results.json of an experiment .*settings'),
    'no clips': (lambda o: _edit(o, lambda i: i['settings'].pop('clips')), 'results.json: expected the results.json of an experiment .*clips'),
    'a column': (lambda o: (o/'analysis.csv').write_text('way\nnone\nNA\n'), "analysis.csv: expected the columns .*, there is no 'runs'"),
    'no UTF-8': (lambda o: (o/'analysis.csv').write_bytes(b'way\n\xe9\n'), 'analysis.csv: expected a table .*utf-8'),
    'other mean': (lambda o: _cell(o/'analysis.csv', 'accuracy', .01, 1), 'analysis.csv: expected 0.[0-9]+ as accuracy of NA, which the runs give, got 0.01'),
    'no number': (lambda o: _cell(o/'results.csv', 'accuracy', 'x', 1), "results.csv: expected a number from 0 to 1 in column 'accuracy', got 'x' in row 3"),
    'above 1': (lambda o: _cell(o/'results.csv', 'accuracy', 1.5), "results.csv: expected a number from 0 to 1 in column 'accuracy', got 1.5 in row 2"),
    'no time': (lambda o: _cell(o/'results.csv', 'seconds', ''), "results.csv: expected a number in column 'seconds', got nan"),
    'twice': (lambda o: _cell(o/'results.csv', 'fold', '1', 2) or _cell(o/'results.csv', 'fold', '1', 3), '2 of 4 runs are done, some twice'),
    'a way less under a condition': (lambda o: _less(o/'conditions-analysis.csv', 5), r'conditions-analysis.csv: expected 2 of NA under NA, .* runs, got none'),
    'other mean under conditions': (lambda o: _cell(o/'conditions-analysis.csv', 'accuracy', .01), 'conditions-analysis.csv: expected .* as accuracy of none under all, against clean, which the runs give'),
    'a run more': (lambda o: pd.read_csv(o/'results.csv', keep_default_na=False).assign(seed=7).to_csv(o/'results.csv', index=False), 'holds 4 runs that tiny.toml does not have, such as none, 1, 7')}

@pytest.mark.parametrize('name', _bad)
def test_what_is_not_a_whole_experiment_of_the_recipe_is_not_kept_and_not_written(done, tmp_path, monkeypatch, name):
    spoil,says = _bad[name]
    shutil.copytree(done/'experiments', tmp_path/'experiments')
    shutil.copytree(done/'results-recipes', tmp_path/'results-recipes')
    m = _at(tmp_path, monkeypatch)
    for at,args in (('results-recipes',[str(m.here/'tiny.toml'),str(tmp_path/'results-recipes'/'tiny')]),('experiments',[])):
        spoil(tmp_path/at/'tiny')
        before = _files(m.here)
        with pytest.raises(SystemExit, match=says): m.main(args)
        assert _files(m.here)==before

_first = lambda o: min((o/'runs').iterdir())
_runs = {
    'less': (lambda o: _first(o).unlink(), 'results.csv: expected the runs in .*runs, got 0.* as accuracy of .*, which is not there'),
    'none': (lambda o: shutil.rmtree(o/'runs'), 'runs: expected finished runs, there is none'),
    'others': (lambda o: _row(_first(o), accuracy=json.loads(_first(o).read_text())['row']['accuracy']+1e-6), 'results.csv: expected the runs in .*runs, got 0.* as accuracy of .*, which is 0.* there'),
    'no number': (lambda o: _row(_first(o), n_valid='x'), "runs: expected a number in column 'n_valid', got 'x'"),
    'no seconds': (lambda o: _row(_first(o), seconds=None), "runs: expected a number in column 'seconds', got nan"),
    'cut': (lambda o: _first(o).write_text('{"row":'), 'is not a run of an experiment')}

@pytest.mark.parametrize('name', _runs)
def test_tables_are_kept_with_the_runs_that_made_them(done, tmp_path, monkeypatch, name):
    m,(spoil,says),out = _at(tmp_path, monkeypatch),_runs[name],tmp_path/'out'
    shutil.copytree(done/'results-recipes'/'tiny', out)
    spoil(out)
    before = _files(m.here)
    with pytest.raises(SystemExit, match=says): m.main(['tiny', str(out)])
    if name not in ('less','others'):  # these are runs too
        with pytest.raises(SystemExit, match=says): m.main(['pause', 'tiny', str(out)])
    assert _files(m.here)==before

_archives = {
    'no runs': (lambda m,f: {'results.json':f['results.json']}, 'expected finished runs, there is none'),
    'no results': (lambda m,f: {**f, 'results.json':b'{}'}, 'expected the results.json of an experiment'),
    'of another recipe': (lambda m,f: (m.here/'tiny.toml').write_text(_tiny.replace('ways = ["none", "NA"]', 'ways = ["none"]').replace('NA = {way = "global"}', '')) and f, 'is not of tiny.toml: '),
    'other runs': (lambda m,f: (m.here/'tiny.toml').write_text(_tiny.replace('runs = 1', 'runs = 1\nseed = 3')) and f, 'runs.tar.xz: holds 2 runs that tiny.toml does not have, such as '),
    'other name': (lambda m,f: {(n if n=='results.json' else 'runs/a.json'):v for n,v in f.items()}, 'runs.tar.xz/runs/a.json is not a run'),
    'no clips': (lambda m,f: {n:v.replace(b'"n_valid"', b'"n"') for n,v in f.items()}, "expected the columns .*, there is no 'n_valid'"),
    'words': (lambda m,f: {n:v.replace(b'"seconds": ', b'"seconds": "long", "secs": ') for n,v in f.items()}, "expected a number in column 'seconds', got 'long'")}

@pytest.mark.parametrize('name', _archives)
def test_packed_runs_that_are_not_of_the_recipe_are_not_counted_and_not_unpacked(done, tmp_path, monkeypatch, name):
    m,(spoil,says) = _at(tmp_path, monkeypatch),_archives[name]
    _half(done, tmp_path)
    m.main(['pause', 'tiny'])
    file = m.here/'tiny'/'runs.tar.xz'
    file.write_bytes(m.pack(spoil(m, m.contents(file))))
    before,page = _files(m.here),f'{file}: .*{says}'
    with pytest.raises(SystemExit, match=page): m.main([])
    with pytest.raises(ValueError, match=page): m.unpack(m.here/'tiny.toml', tmp_path/'new')
    assert _files(m.here)==before and not (tmp_path/'new').exists()

def test_unpacking_that_was_stopped_goes_on(done, tmp_path, monkeypatch):
    m,out = _at(tmp_path, monkeypatch),_half(done, tmp_path)
    m.main(['pause', 'tiny'])
    held = m.contents(m.here/'tiny'/'runs.tar.xz')
    (out/'results.json').unlink(); _first(out).unlink()
    for _ in range(2): m.unpack(m.here/'tiny.toml', out)
    assert _files(out)==held

def test_only_what_is_not_kept_is_paused(done, tmp_path, monkeypatch):
    shutil.copytree(done/'experiments', tmp_path/'experiments')
    m,out = _at(tmp_path, monkeypatch),_half(done, tmp_path)
    before = _files(m.here)
    with pytest.raises(SystemExit, match='tiny: holds the tables of tiny.toml, done with these settings, so there is nothing to pack'): m.main(['pause', 'tiny'])
    assert _files(m.here)==before
    (m.here/'tiny.toml').write_text(_tiny.replace('epochs = 1', 'epochs = 2'))
    with pytest.raises(SystemExit, match='experiments/tiny: is not of tiny.toml: epochs is 1, the recipe says 2'): m.main([])
    _settle(out, epochs=2)
    m.main(['pause', 'tiny'])
    assert '| 2 of 4 runs so far |' in (m.here/'RESULTS.md').read_text() and '## tiny' not in (m.here/'RESULTS.md').read_text()  # the tables are of 1 epoch
    assert {k:v for k,v in _files(m.here).items() if 'runs.tar.xz' not in k and k not in ('RESULTS.md','tiny.toml')}=={k:v for k,v in before.items() if k not in ('RESULTS.md','tiny.toml')}

_texts = {
    'no verdict': (lambda h: (h/'verdicts.md').write_text('{tiny}'), 'tiny.verdict.md: expected what the runs in .*tiny say'),
    'no recipe to tell of': (lambda h: (h/'verdicts.md').write_text('{other}'), 'other.toml: expected a recipe among'),
    'no runs': (lambda h: (h/'tiny.verdict.md').write_text('Well.') and shutil.rmtree(h/'tiny'), 'tiny.verdict.md: tells of runs, expected these in .*tiny, there are none'),
    'no runs of a note': (lambda h: (h/'tiny.md').write_text('Well.') and shutil.rmtree(h/'tiny'), 'tiny.md: tells of runs'),
    'no recipe': (lambda h: (h/'tiny').rename(h/'gone'), 'gone: holds runs, expected their recipe .*gone.toml, there is none'),
    'no runs of the article': (lambda h: (h/'verdicts.md').write_text('{article}') and (h/'article.csv').write_text('way,run,accuracy\n'), 'article.csv: expected two or more runs of two or more ways, got {}'),
    'tried without accuracy': (lambda h: (h/'tried.csv').write_text('data,settings,seed,clips\n'), "tried.csv: expected the columns .*, there is no 'accuracy'")}

@pytest.mark.parametrize('name', _texts)
def test_the_page_tells_of_nothing_that_is_not_there(done, tmp_path, monkeypatch, name):
    spoil,says = _texts[name]
    shutil.copytree(done/'experiments', tmp_path/'experiments')
    m = _at(tmp_path, monkeypatch)
    spoil(m.here)
    before = _files(m.here)
    with pytest.raises(SystemExit, match=says): m.main([])
    assert _files(m.here)==before

def test_a_verdict_says_what_was_run(done, tmp_path, monkeypatch):
    m = _at(tmp_path, monkeypatch)
    (m.here/'verdicts.md').write_text('So: {tiny}')
    assert 'So: `tiny.toml` has not been run to its end yet.' in m.text()
    shutil.copytree(done/'experiments'/'tiny', m.here/'tiny'); (m.here/'tiny.verdict.md').write_text('It works.')
    assert 'So: It works.' in m.text()

def test_tables_of_another_recipe_stop_the_page_and_not_the_runs(done, tmp_path, monkeypatch, capsys):
    m = _at(tmp_path, monkeypatch)
    for n,k in (('second',2),('third',3)): (m.here/f'{n}.toml').write_text(_tiny.replace('E1', f'E{k}')); shutil.copytree(done/'experiments'/'tiny', m.here/n)
    _less(m.here/'third'/'results.csv')
    ran = []
    monkeypatch.setattr(m, 'status', lambda words: ran.append(words) or 0); monkeypatch.setattr(m, 'keep', lambda *_: None)
    with pytest.raises(SystemExit, match='^RESULTS.md is not written: .*third: 3 of 4 runs are done. Run the recipe anew'): m.main(['run', f'ESC10={tmp_path}'])
    assert len(ran)==3

def test_only_recipes_of_experiments_are_kept_and_old_conditions_go(done, tmp_path, monkeypatch):
    shutil.copytree(done/'experiments', tmp_path/'experiments')
    m = _at(tmp_path, monkeypatch)
    before,out = _files(m.here),str(done/'results-recipes'/'tiny')
    (tmp_path/'tiny.toml').write_text('# Another one')
    for r in ('other.toml',m.here/'tiny.csv',tmp_path/'tiny.toml'):
        with pytest.raises(SystemExit, match='expected a recipe among'): m.main([str(r), out])
    with pytest.raises(SystemExit, match='expected a folder that specnorm-compare wrote, there is none'): m.main(['tiny', str(tmp_path/'no')])
    assert _files(m.here)==before and not (m.here/'other').exists()
    m.main(['experiments/tiny.toml', out])
    assert _files(m.here)==before
    shutil.copytree(done/'results-recipes'/'tiny', tmp_path/'plain')
    (m.here/'tiny.toml').write_text(_tiny[:_tiny.index('[conditions]')])  # the same without conditions
    _settle(tmp_path/'plain', conditions={})
    with pytest.raises(SystemExit, match='conditions-analysis.csv: expected none, as tiny.toml has no conditions'): m.main(['tiny', str(tmp_path/'plain')])
    (tmp_path/'plain'/'conditions-analysis.csv').unlink()
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

@pytest.mark.parametrize('some,says', [(False,'begins anew: no run was finished'),(True,'goes on; .* tools/results.py pause tiny packs the finished runs')])
def test_a_stop_stops(tmp_path, monkeypatch, capsys, some, says):
    m,ran = _at(tmp_path, monkeypatch),[]
    (m.here/'second.toml').write_text(_tiny.replace('E1', 'E2'))
    (runs:=tmp_path/'results-recipes'/'tiny'/'runs').mkdir(parents=True)
    monkeypatch.setattr(m, 'status', lambda words: ran.append(words) or some and (runs/'a.json').touch() or 130)
    with pytest.raises(SystemExit) as e: m.main(['run', f'ESC10={tmp_path}'])
    assert e.value.code==130 and len(ran)==1 and re.search('Stopped. The same command '+says, capsys.readouterr().out)

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
