"The experiment: whole runs, kept runs, and messages for what cannot run"
import json,re,signal,shutil,subprocess,sys,time
from pathlib import Path
import numpy as np, pandas as pd, pytest, soundfile as sf
from specnorm_fastai.all import *
from specnorm_fastai.compare import _arguments
from specnorm_fastai.experiment import _even_folds

COMPARE = [sys.executable,'-c','import sys; from specnorm_fastai.cli import compare; sys.exit(compare())']
QUICK = ['--epochs','1','--runs','1','--duration','0.3','--arch','small']
def run(*args, **kw): return subprocess.run([*COMPARE,*map(str,args)], capture_output=True, text=True, timeout=300, **kw)
def quiet(*a, **kw): return compare(*a, **{**dict(epochs=1, runs=1, duration=.3, arch='small', log=lambda s: None), **kw})

@pytest.fixture(scope='module')
def small(tmp_path_factory): return synthetic_audio(tmp_path_factory.mktemp('small'), n=40, seconds=.5)

@pytest.fixture(scope='module')
def done(small, tmp_path_factory):
    "One experiment by the command line"
    out = tmp_path_factory.mktemp('cli')/'out'
    return out,run('--data', small, '--out', out, *QUICK)

def test_the_command_line_writes_everything(done, small):
    out,r = done
    assert r.returncode==0, r.stderr
    assert [l.split()[0] for l in r.stdout.splitlines() if l.split()[:1] and l.split()[0] in ('none','global','frequency')]==['none','global','frequency']
    assert all(f'run {i}/3: {w}, fold 1, seed 0: ' in r.stdout for i,w in ((1,'none'),(2,'global'),(3,'frequency'))) and '\r' not in r.stdout  # progress while it works
    rows,preds,info = pd.read_csv(out/'results.csv'),pd.read_csv(out/'predictions.csv'),json.loads((out/'results.json').read_text())
    assert {'way','fold','seed','accuracy','balanced_accuracy','loss','n_train','n_valid','seconds','started','arch','features','epochs','lr','bs'}<=set(rows.columns)
    assert list(rows.way)==['none','global','frequency'] and set(rows.arch)=={'small'} and set(rows.n_train)=={32} and set(rows.n_valid)=={8}
    assert list(preds.columns)==['way','fold','seed','filename','label','predicted','probability','p_label'] and len(preds)==3*8
    classes,history = pd.read_csv(out/'classes.csv'),pd.read_csv(out/'history.csv')
    for w,g in preds.groupby('way'):
        right = g.label==g.predicted
        r = rows[rows.way==w].iloc[0]
        assert np.isclose(right.mean(), r.accuracy) and g.probability.between(0,1).all() and np.isclose(-np.log(g.p_label.clip(1e-6)).mean(), r.loss, atol=1e-3)
        assert np.allclose(g.p_label[right], g.probability[right]) and (g.p_label<=g.probability+1e-6).all()
        c = classes[classes.way==w].set_index('label')
        assert np.allclose(c.recall.dropna(), right.groupby(g.label).mean()) and np.isclose(c.recall.mean(), r.balanced_accuracy)
        h = history[history.way==w]
        assert list(h.epoch)==[1] and np.isclose(h.accuracy.item(), r.accuracy, atol=1e-6) and np.isclose(h.valid_loss.item(), r.loss, rtol=1e-3)
    a = pd.read_csv(out/'analysis.csv')
    assert list(a.way)==list(rows.way) and list(a.verdict)==['baseline','not established','not established']
    stats = json.loads((out/'stats.json').read_text())
    assert list(stats)==['1'] and len(stats['1']['mean'])==len(stats['1']['freqs'])==64
    with np.load(out/'examples.npz') as z: assert z['before'].shape==z['way:global'].shape and np.allclose(z['way:none'], z['before']) and np.allclose(z['way:global'], (z['before']-stats['1']['global']['mean'])/stats['1']['global']['std'], atol=1e-3)
    page = (out/'report.html').read_text()
    assert 'not established' in page and '<html' in page
    df = pd.read_csv(small/'meta'/'synthetic.csv')
    assert set(preds.filename)==set(df.filename[df.fold==1])
    s = info['settings']
    assert s['epochs']==1 and s['features']=='mel' and s['duration']==.3 and s['clips']==40 and info['versions']['torch'] and info['versions']['processor'].endswith(torch.backends.cpu.get_cpu_capability()) and info['call']['workers']==0 and info['call']['runs']==1 and info['labels']==sorted(df.category.unique())

def test_called_again_it_trains_nothing(done, small):
    out,_ = done
    before = {f:f.stat().st_mtime_ns for f in (out/'runs').iterdir()}
    r = run('--data', small, '--out', out, *QUICK)
    assert r.returncode==0 and '3 of them done before' in r.stdout and before=={f:f.stat().st_mtime_ns for f in (out/'runs').iterdir()}

def test_other_settings_in_the_same_folder_are_refused(done, small):
    out,_ = done
    r = run('--data', small, '--out', out, *QUICK, '--epochs','2')
    assert r.returncode==1 and 'epochs was 1, is 2' in r.stderr and 'Traceback' not in r.stderr

def test_more_runs_are_added_to_those_there(small, tmp_path):
    quiet(small, tmp_path/'o', ways='none')
    a = pd.read_csv(tmp_path/'o'/'results.csv')
    assert quiet(small, tmp_path/'o', ways=['none','global'], runs=2).runs.tolist()==[2,2]
    b = pd.read_csv(tmp_path/'o'/'results.csv')
    assert len(b)==4 and b.query("way=='none' and seed==0").accuracy.item()==a.accuracy.item()
    said = []
    t = quiet(small, tmp_path/'o', ways='item', runs=2, log=said.append)  # a way more: compared to the baseline of the folder
    assert t.way.tolist()==['none','global','item'] and t.verdict[0]=='baseline' and t.runs.tolist()==[2,2,2] and any('4 more runs' in l for l in said)
    with np.load(tmp_path/'o'/'examples.npz') as z: assert {'way:none','way:global','way:item'}<=set(z.files)

def test_a_seed_repeats_a_run(small, tmp_path):
    for o in 'ab': quiet(small, tmp_path/o, ways='global')
    a,b = (pd.read_csv(tmp_path/o/'predictions.csv') for o in 'ab')
    assert (a.predicted==b.predicted).all() and np.allclose(a.probability, b.probability, atol=1e-4)  # threads may sum in another order

def test_interrupted_it_keeps_finished_runs(small, tmp_path):
    p = subprocess.Popen([*COMPARE,'--data',str(small),'--out',str(tmp_path/'o'),*QUICK,'--runs','30'],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a background shell ignores it
    t = time.time()
    while not list((tmp_path/'o'/'runs').glob('*.json')) and time.time()-t<120 and p.poll() is None: time.sleep(.05)
    p.send_signal(signal.SIGINT)
    _,err = p.communicate(timeout=60)
    assert p.returncode==130 and 'Finished runs are kept' in err and 'with fewer --runs' in err and 'Traceback' not in err
    n = len(list((tmp_path/'o'/'runs').glob('*.json')))
    assert 1<=n<90 and len(pd.read_csv(tmp_path/'o'/'results.csv'))==n
    table = quiet(small, tmp_path/'o', runs=1)
    assert table.way.tolist()==['none','global','frequency'] and table.runs.min()>=1 and not list((tmp_path/'o').rglob('.*-*'))

def test_one_folder_a_class(tmp_path):
    rng = np.random.default_rng(0)
    for c in ('a','b'):
        (tmp_path/'d'/c).mkdir(parents=True)
        for i in range(10): sf.write(tmp_path/'d'/c/f'{i}.wav', rng.normal(size=rng.integers(4000,9000))*.1, 8000)
    df = read_table(tmp_path/'d')
    assert set(df.label)=={'a','b'} and df.groupby(['fold','label']).size().tolist()==[2]*10 and (df.fold==read_table(tmp_path/'d').fold).all()
    assert quiet(tmp_path/'d', tmp_path/'o', fold='2').runs.tolist()==[1,1,1]
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(ValueError, match='out: .*results lies in .*d, whose folders are classes'): quiet(tmp_path/'d', tmp_path/'d'/'results')
    assert sorted(tmp_path.rglob('*'))==before
    assert len(quiet(tmp_path/'d', tmp_path/'d'/'.results', ways='none'))==len(quiet(tmp_path/'d', tmp_path/'d'/'.results', ways='none'))==1  # no class
    (tmp_path/'d'/'a').rename(tmp_path/'d'/'audio')
    with pytest.raises(ValueError, match='whose folders are classes'): quiet(tmp_path/'d', tmp_path/'d'/'results')

def test_noise_that_went_by_the_name_alone_is_not_mixed_with_that_of_now(tmp_path):
    for c in 'ab':
        (tmp_path/'d'/c).mkdir(parents=True)
        for i in range(10): sf.write(tmp_path/'d'/c/f'{i}.wav', np.random.default_rng(i).normal(size=8000)*.1, 16000)
    kw = dict(ways='none', conditions={'n':dict(snr=0)})
    quiet(tmp_path/'d', tmp_path/'o', **kw)
    info = json.loads((tmp_path/'o'/'results.json').read_text())
    del info['settings']['noise_of']; (tmp_path/'o'/'results.json').write_text(json.dumps(info))
    with pytest.raises(ValueError, match="noise_of was None, is 'folder and name'"): quiet(tmp_path/'d', tmp_path/'o', **kw)

def test_other_columns_and_the_test_column(fsdd, tmp_path):
    df = read_table(fsdd, 'digit', 'speaker', 'is_test')
    src = pd.read_csv(fsdd/'meta'/'fsdd.csv')
    assert set(df.label)=={str(i) for i in range(10)} and (split_masks(df, 'test')==src.is_test).all()
    assert (split_masks(df, src.speaker[0])==(src.speaker==src.speaker[0])).all()

def test_even_folds_spread_each_class():
    f = _even_folds(np.array(['a']*10+['b']*7))
    assert all(abs((f[:10]==k).sum()-2)<1 and (f[10:]==k).sum() in (1,2) for k in range(1,6))

def _table(d, rows, cols='filename,fold,category', audio=('a.wav','b.wav')):
    (d/'audio').mkdir(parents=True); (d/'meta').mkdir()
    (d/'meta'/'t.csv').write_text('\n'.join([cols,*rows])+'\n')
    for f in audio: sf.write(d/'audio'/f, np.random.default_rng(0).normal(size=16000)*.1, 16000)
    return d

OK = ['a.wav,1,x','b.wav,2,y']
@pytest.mark.parametrize('rows,cols,args,msg', [
    (OK, 'file,fold,category', [], "no column 'filename'"), (OK, 'filename,fold,kind', [], 'which column'),
    (OK, 'filename,fold,category', ['--label-col','kind'], "label_col: no column 'kind'"), (OK, 'filename,fold,category', ['--fold-col','f'], "fold_col: no column 'f'"),
    (OK, 'filename,fold,category', ['--test-col','t'], "test_col: no column 't'"),
    (['a.wav,1,x','c.wav,2,y'], 'filename,fold,category', [], 'c.wav'), (['a.wav,1,x','a.wav,2,y'], 'filename,fold,category', [], 'listed more than once'),
    (['a.wav,1,x','b.wav,2,'], 'filename,fold,category', [], "column 'category' is empty in row 3"), (['../../x.wav,1,x','b.wav,2,y'], 'filename,fold,category', [], 'points outside'),
    (OK, 'filename,fold,category', ['--fold','9'], "no clip in fold '9'; the folds are [1, 2]"), (['a.wav,1,x','b.wav,1,y'], 'filename,fold,category', [], 'every clip is in fold'),
    (OK, 'filename,fold,category', [], "no clip to train on for the classes ['x']"), (['a.wav,1,x','b.wav,2,x'], 'filename,fold,category', [], 'at least two classes'),
    ([], 'filename,fold,category', [], 'has no rows')])
def test_a_bad_table_is_one_clear_message(tmp_path, capsys, rows, cols, args, msg):
    from specnorm_fastai.cli import compare as cli
    d = _table(tmp_path/'d', rows, cols)
    assert cli(['--data',str(d),'--out',str(tmp_path/'o'),*QUICK,*args])==1
    err = capsys.readouterr().err
    assert msg in err and 'Traceback' not in err and not (tmp_path/'o'/'results.json').exists()

@pytest.mark.parametrize('args,msg', [(['--epochs','0'],'epochs: expected a whole number of at least 1'), (['--runs','0'],'runs'), (['--bs','1'],'bs'), (['--lr','-1'],'lr'),
    (['--duration','-2'],'duration'), (['--duration','5000'],'duration: expected seconds'), (['--ways','best'],"ways: 'best' is not known"), (['--workers','-1'],'workers'), (['--ways','none','item','none'],"'none' is named twice"),
    (['--ways','item+pcen'],"'pcen' takes power"), (['--ways','freqency'],"did you mean 'frequency'"), (['--baseline','item'],"baseline: expected one of the ways ['none', 'global', 'frequency'], got 'item'"),
    (['--seed','-1'],'seed'), (['--waveform','loud'],'waveform: expected one of'), (['--wd','-1'],'wd'), (['--recipe','/nowhere.toml'],'recipe: cannot read /nowhere.toml'), (['--recipe','x.yaml'],'ends in .toml or .json'),
    (['--test-dir','/x'],'test_data: expected together with data'),
    (['--data','/nowhere'],'no such folder'), (['--label-col','x'],'label_col: expected together with data'), (['--lr','inf'],'lr'), (['--data',''],'data: expected a folder')])
def test_bad_arguments_are_one_clear_message(tmp_path, capsys, args, msg):
    from specnorm_fastai.cli import compare as cli
    assert cli([*args,'--out',str(tmp_path/'o')])==1
    assert msg in capsys.readouterr().err and not (tmp_path/'o').exists()

def test_unknown_features_are_refused_by_the_parser(capsys):
    from specnorm_fastai.cli import compare as cli
    with pytest.raises(SystemExit) as e: cli(['--features','cepstrum'])
    assert e.value.code==2 and 'spec' in capsys.readouterr().err

def test_an_empty_class_folder_is_named(tmp_path):
    for c in 'ab': (tmp_path/c).mkdir()
    sf.write(tmp_path/'a'/'1.wav', np.zeros(100), 8000)
    with pytest.raises(ValueError, match=f'no audio file .* in the class folder {tmp_path}/b'): read_table(tmp_path)
    with pytest.raises(ValueError, match='neither audio/'): (tmp_path/'e').mkdir(); read_table(tmp_path/'e')

@pytest.mark.parametrize('bad', ['empty','text','cut'])
def test_bad_files_are_named_before_anything_is_trained(small, tmp_path, bad):
    import shutil
    shutil.copytree(small, tmp_path/'d')
    f = sorted((tmp_path/'d'/'audio').iterdir())[7]
    f.write_bytes({'empty':b'', 'text':b'no audio', 'cut':f.read_bytes()[:2000]}[bad])
    with pytest.raises(ValueError, match=rf'(?s)1 of 40 audio files cannot be used:.*{f.name}'): quiet(tmp_path/'d', tmp_path/'o')

@pytest.mark.parametrize('workers', [0,2])
def test_nan_is_named_in_all_files_at_once_whatever_the_workers(small, tmp_path, capsys, workers):
    import shutil
    from specnorm_fastai.cli import compare as cli
    shutil.copytree(small, tmp_path/'d')
    bad = [f for i,f in enumerate(sorted((tmp_path/'d'/'audio').iterdir())) if i in (4,20)]
    for f in bad: sf.write(f, np.array([0.,.1,np.nan]*3000), 16000, subtype='FLOAT')
    assert cli(['--data',str(tmp_path/'d'),'--out',str(tmp_path/'o'),*QUICK,'--workers',str(workers)])==1
    err = capsys.readouterr().err
    assert '2 of 40 audio files cannot be used' in err and all(f'NaN or Inf in 3000 of 9000 samples of {f}' in err for f in bad) and 'Traceback' not in err

def test_a_clip_shorter_than_one_window_is_named(small, tmp_path):
    import shutil
    shutil.copytree(small, tmp_path/'d')
    f = sorted((tmp_path/'d'/'audio').iterdir())[20]
    sf.write(f, np.full(100, .1), 16000)
    with pytest.raises(ValueError, match=f'{f.name} is shorter than one window: 100 samples'): quiet(tmp_path/'d', tmp_path/'o')

def test_help_imports_nothing_heavy():
    code = "import sys\nfrom specnorm_fastai.cli import compare\ntry: compare(['--help'])\nexcept SystemExit: pass\nprint('HEAVY', [m for m in ('torch','fastai','librosa','numba','matplotlib') if m in sys.modules])"
    r = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True)
    assert r.stdout.strip().endswith('HEAVY []') and '--data' in r.stdout

def test_real_clips_of_unequal_length_train(esc10, tmp_path):
    "The whole path on real audio, cut to a few clips and a short crop, with two workers"
    df = pd.read_csv(esc10/'meta'/'esc10.csv').groupby(['fold','category']).head(1)
    d = tmp_path/'d'; (d/'meta').mkdir(parents=True); (d/'audio').symlink_to(esc10/'audio'); df.to_csv(d/'meta'/'t.csv', index=False)
    assert quiet(d, tmp_path/'o', workers=2, duration=1.).runs.tolist()==[1,1,1]
    assert len(pd.read_csv(tmp_path/'o'/'predictions.csv'))==3*(df.fold==1).sum()

def test_changed_audio_is_not_mixed_with_old_runs(small, tmp_path):
    import shutil
    shutil.copytree(small, tmp_path/'d')
    quiet(tmp_path/'d', tmp_path/'o', ways='none')
    f = next((tmp_path/'d'/'audio').iterdir()); x,sr = sf.read(f); sf.write(f, x[::-1], sr)
    with pytest.raises(ValueError, match='the table or the audio was another one'): quiet(tmp_path/'d', tmp_path/'o', ways='none')

def test_a_run_of_other_settings_is_refused_also_without_results_json(small, tmp_path):
    quiet(small, tmp_path/'o', ways='none')
    (tmp_path/'o'/'results.json').unlink()
    with pytest.raises(ValueError, match='is a run of other settings'): quiet(small, tmp_path/'o', ways='none', lr=.01)

def _started(small, out, *args):
    p = subprocess.Popen([*COMPARE,'--data',str(small),'--out',str(out),*QUICK,*args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    t = time.time()
    while not list((out/'runs').glob('*.json')) and time.time()-t<120 and p.poll() is None: time.sleep(.02)
    return p

def test_one_process_alone_writes_to_a_folder(small, tmp_path):
    p = _started(small, tmp_path/'o', '--runs','30')
    try:
        assert p.poll() is None
        with pytest.raises(RuntimeError, match='another process is writing to'): quiet(small, tmp_path/'o', ways='none')
    finally: p.kill(); p.wait()
    assert 'none' in quiet(small, tmp_path/'o', ways='none').way.tolist()  # the system has let go of the lock

def test_killed_at_any_moment_it_loses_no_finished_run_and_goes_on(small, tmp_path):
    "kill -9, five times at odd moments; then the tables are those of an experiment that nobody disturbed"
    rng,out,seen = np.random.default_rng(0),tmp_path/'o',{}
    for k in range(5):
        p = _started(small, out, '--ways','none','global','--runs','6')
        time.sleep(rng.uniform(0, 1.2)); p.kill(); p.wait()
        now = {f.name:f.read_bytes() for f in (out/'runs').glob('*.json')}
        for f,b in now.items(): json.loads(b)  # whole
        assert all(now.get(f)==b for f,b in seen.items())  # none is lost or trained again
        seen = now
    (out/'runs'/'.specnorm-half').write_text('{')  # as a write that was cut short leaves it
    assert quiet(small, out, ways=['none','global'], runs=6).runs.tolist()==[6,6]
    quiet(small, tmp_path/'calm', ways=['none','global'], runs=6)
    a,b = (pd.read_csv(d/'predictions.csv') for d in (out,tmp_path/'calm'))
    assert (a.drop(columns=['probability','p_label'])==b.drop(columns=['probability','p_label'])).all(None) and np.allclose(a.p_label, b.p_label, atol=1e-3)
    assert not list(out.rglob('.specnorm-*'))

def test_the_table_is_read_as_it_is_spelled(tmp_path):
    d = _table(tmp_path/'d', ['01.wav,1,01,yes','1.wav,2,1,no','02.wav,1,None,FALSE','2.wav,2,NA,1'], 'filename,fold,category,test', ('01.wav','1.wav','02.wav','2.wav'))
    (d/'meta'/'._t.csv').write_text('junk')
    df = read_table(d, test_col='test')
    assert df.label.tolist()==['01','1','None','NA'] and df.fold.tolist()==[1,2,1,2] and df.test.tolist()==[True,False,False,True]

def test_one_file_under_two_names_and_an_odd_test_value_are_refused(tmp_path):
    with pytest.raises(ValueError, match='listed more than once'): read_table(_table(tmp_path/'d', ['a.wav,1,x','./a.wav,2,y']))
    with pytest.raises(ValueError, match="test_col: expected true or false .* got '2' in row 3"): read_table(_table(tmp_path/'e', ['a.wav,0,x','b.wav,2,y']), test_col='fold')

@pytest.mark.parametrize('rows,line', [(['a.wav,1,x,y','b.wav,2,y'], 2), (['a.wav,1,x','b.wav,2,y,x'], 3), (['a.wav,1,x,y','b.wav,2,y,x'], 2), (['"a\n.wav",1,x,','b.wav,2,y,x'], 4)])
def test_a_field_too_many_is_told_with_its_row(tmp_path, rows, line):
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path/'d'/'meta'/'t.csv'} as csv in UTF-8: Expected 3 fields in line {line}, saw 4")): read_table(_table(tmp_path/'d', rows))

def test_commas_at_the_ends_of_rows_are_no_fields(tmp_path):
    assert read_table(_table(tmp_path/'d', ['a.wav,1,x,','b.wav,2,y'])).label.tolist()==['x','y']

def test_folds_that_were_made_are_announced(tmp_path):
    said = []
    for c in 'ab':
        (tmp_path/'d'/c).mkdir(parents=True)
        for i in range(10): sf.write(tmp_path/'d'/c/f'{i}.wav', np.random.default_rng(i).normal(size=8000)*.1, 16000)
    compare(tmp_path/'d', tmp_path/'o', ways=['none','item'], epochs=1, runs=1, bs=8, arch='small', log=said.append)
    assert 'five folds were made' in said[0] and any('one run of each' in s.replace('\n  ',' ') for s in said)

RECIPE = """
ways = ["none", "short", "pcen+global"]
runs = 1
epochs = 1
arch = "small"
duration = 0.3
[features]
kind = "mel"
n_mels = 20
[way_options.short]
use = "sliding"
seconds = 0.1
"""

def test_a_recipe_holds_the_whole_setting_and_is_written_for_the_next(small, tmp_path):
    (tmp_path/'r.toml').write_text(RECIPE)
    a = compare(small, tmp_path/'o', recipe=tmp_path/'r.toml', log=lambda s: None)
    assert a.way.tolist()==['none','short','pcen+global']
    with np.load(tmp_path/'o'/'examples.npz') as z: assert z['before'].shape[1]==20
    said = []
    b = compare(small, tmp_path/'o', recipe=tmp_path/'o'/'recipe.json', log=said.append)  # the same experiment: nothing is trained
    assert '3 of them done before' in said[0] and a.accuracy.equals(b.accuracy)
    compare(small, tmp_path/'p', recipe=tmp_path/'r.toml', ways=['item'], seed=3, epochs=2, way_options={}, log=lambda s: None)  # arguments stand above it
    rows = pd.read_csv(tmp_path/'p'/'results.csv')
    assert rows.way.tolist()==['item'] and rows.seed.tolist()==[3] and rows.epochs.tolist()==[2]

@pytest.mark.parametrize('text,msg', [('epoch = 3', "'epoch' is not known; did you mean 'epochs'"), ('epochs = "3"', 'epochs: expected a whole number'), ('epochs = ', 'is not TOML'), ('ways = ["short"]', "ways: 'short' is not known"),
    ('[way_options.itm]\nper="item"\n', "way_options: 'itm' is no way; did you mean 'item'"), ('[way_options.item]\npre="item"\n', "way_options.item: 'pre' is not known; did you mean 'per'"),
    ('ways = ["item"]\n[way_options.item]\nper="x"\n', 'way_options.item: '), ('ways = ["a"]\n[way_options.a]\nuse=["x"]\n', 'way_options.a: expected the name'), ('ways = [["none"]]', 'ways: expected a list of names'),
    ('waveform = []', 'waveform: expected one of'), ('features = 5', 'features: expected a name'), ('[arch_options]\nn_out = 3', "arch_options: 'n_out' follows from the data"), ('arch = "small"\n[arch_options]\nzz = 3', 'arch_options: '), ('fold = true', 'fold: expected'),
    ('ways = ["sliding"]\n[way_options.sliding]\nframes=3', 'way_options.sliding'), ('ways = ["sliding"]\n[way_options.sliding]\nseconds=inf', 'seconds: expected a number'),
    ('ways = ["sliding"]\n[way_options.sliding]\nseconds="3"', 'way_options.sliding.seconds: expected a number'), ('ways = ["pcen"]\n[way_options.pcen]\ngain="x"', 'way_options.pcen.gain: expected a number'),
    ('ways = ["item"]\n[way_options.item]\nstd="no"', 'way_options.item.std: expected true or false'), ('ways = ["minmax"]\n[way_options.minmax]\nclip="no"', 'way_options.minmax.clip: expected true'),
    ('ways = ["db_max"]\n[way_options.db_max]\ntop_db=false', 'top_db: expected 0 or more'), ('ways = ["none"]\n[way_options.none]\nuse="global"', "'none' is a way itself"), ('seed = 99999999999999999999', 'seed: expected a whole number'),
    ('ways = ["a\\rb"]\n[way_options."a\\rb"]\nuse = "global"', 'way_options: expected a name of one line'), ('[conditions."a\\rb"]\ngain = 3', 'conditions: expected a name, of one line'),
    ('ways = ["pcen"]\n[way_options.pcen]\ngain=[0.5]', 'way_options.pcen.gain: expected a number'), ('[features]\npower=[2]', 'power: expected a number'), ('[features]\npower=inf', 'power: expected a number'),
    ('[features]\nto_db="no"', 'to_db: expected True or False'), ('[features]\ntop_db=nan', 'top_db: expected 0 or more'), ('[features]\npower=nan', 'power: expected a number'), ('[features]\nwindow_fn="hann"', 'window_fn: expected a function'),
    ('ways = ["a\\rb"]\n[arms."a\\rb"]\nway = "global"', 'is no name for an arm'), ('[features]\nn_mel=3', "features: 'n_mel' is not known; did you mean 'n_mels'"),
    ('mixup = -1', 'mixup: expected a number above 0'), ('mix = "x"', 'mix: expected one of'), ('min_energy = 3', 'min_energy: expected dB, at most 0'), ('crops = 0', 'crops: expected a whole number'), ('[specaugment]\nf=3', 'specaugment:'),
    ('crop = "left"', "crop: expected 'random' or 'center'"), ('precision = "half"', "precision: expected 'float32' or 'bfloat16'"), ('arch = "resnet1"', "arch: no network 'resnet1'"), ('fold = [1, 1]', 'fold: expected'), ('fold = 7', 'no clip in fold 7')])
def test_a_bad_recipe_is_one_clear_message(small, tmp_path, text, msg):
    (tmp_path/'r.toml').write_text(text)
    with pytest.raises(ValueError, match=re.escape(msg)): quiet_recipe(small, tmp_path/'o', tmp_path/'r.toml')
    assert not list((tmp_path/'o').rglob('runs/*.json'))

def test_settings_that_no_run_was_made_with_may_be_mended(small, tmp_path):
    with pytest.raises(ValueError, match='freq: masks'): quiet(small, tmp_path/'o', specaugment=dict(freq=800))
    assert quiet(small, tmp_path/'o', ways='none').runs.tolist()==[1]

def quiet_recipe(data, out, recipe): return compare(data, out, recipe=recipe, log=lambda s: None)

def test_every_way_trains_and_is_the_same_when_repeated(small, tmp_path):
    ways = [*list_ways().index,'pcen+frequency','item+frequency','db_max+global','global+fill','fill+frequency']
    a = quiet(small, tmp_path/'o', ways=ways, bs=32)
    assert a.way.tolist()==ways and np.isfinite(a.accuracy).all()
    with np.load(tmp_path/'o'/'examples.npz') as z: assert all(np.isfinite(z[f'way:{w}']).all() for w in ways)

def test_every_way_gets_the_same_weights_order_and_splits(small, tmp_path):
    "A chain that changes nothing gives the very answers of its parts"
    quiet(small, tmp_path/'o', ways=['global','same','frequency'], runs=2, way_options=dict(same=dict(use='global')))
    p = pd.read_csv(tmp_path/'o'/'predictions.csv').set_index(['way','seed','filename']).p_label
    assert np.allclose(p['global'], p['same'], atol=1e-5) and not np.allclose(p['global'], p['frequency'], atol=1e-3)

def test_a_folder_to_test_on_is_only_predicted(small, tmp_path):
    import shutil
    df = pd.read_csv(small/'meta'/'synthetic.csv')
    for nm,part in (('train',df[df.fold!=1]),('test',df[df.fold==1])):
        (tmp_path/nm/'meta').mkdir(parents=True); (tmp_path/nm/'audio').mkdir(); part.to_csv(tmp_path/nm/'meta'/'t.csv', index=False)
        for f in part.filename: shutil.copy(small/'audio'/f, tmp_path/nm/'audio'/f)
    r = run('--data', tmp_path/'train', '--test-dir', tmp_path/'test', '--out', tmp_path/'o', *QUICK, '--ways','global')
    assert r.returncode==0, r.stderr
    p = pd.read_csv(tmp_path/'o'/'predictions.csv')
    assert sorted(p.filename)==sorted(df.filename[df.fold==1]) and set(p.fold)=={'test'}
    quiet(small, tmp_path/'w', ways='global', fold=1)  # the same clips, weights and order
    assert np.allclose(p.p_label, pd.read_csv(tmp_path/'w'/'predictions.csv').p_label, atol=1e-3)
    for args,msg in (((tmp_path/'train',),'is among the train clips too'),):
        with pytest.raises(ValueError, match=msg): quiet(tmp_path/'train', tmp_path/'x', test_data=args[0])
    with pytest.raises(ValueError, match='fold: expected without test_data'): quiet(tmp_path/'train', tmp_path/'x', test_data=tmp_path/'test', fold=2)

@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    "Two folders of eight clips each, of two classes, with recordings"
    d = tmp_path_factory.mktemp('pair')
    res = [_folds(d/k, [1,1,1,1,2,2,2,2], extra=[f'{k}{i//2}' for i in range(8)]) for k in 'ab']
    for f in (res[1]/'audio').iterdir(): x,sr = sf.read(f); sf.write(f, x[::-1], sr)
    return res

def _table_of(d, change):
    "A folder of the same audio with another table"
    import shutil
    src,to = d
    shutil.copytree(src, to)
    df = pd.read_csv(to/'meta'/'t.csv', dtype=str); change(df).to_csv(to/'meta'/'t.csv', index=False)
    return to

def test_train_clips_are_no_test_clips_however_they_are_spelled(pair, tmp_path, monkeypatch):
    a,b = pair
    (tmp_path/'link').symlink_to(a); monkeypatch.chdir(a.parent)
    for same in (a,'a',b/'..'/'a',tmp_path/'link'):
        with pytest.raises(ValueError, match='^test_data: .*wav is among the train clips too'): quiet(a, tmp_path/'o', test_data=same)
    import shutil
    shutil.copytree(b, tmp_path/'c'); shutil.copy(a/'audio'/'a0.wav', tmp_path/'c'/'audio'/'b1.wav')
    said = []
    quiet(a, tmp_path/'o', ways='none', bs=4, test_data=tmp_path/'c', log=said.append)
    assert any(s.startswith('1 test clip is a train clip too, byte for byte, test/b1.wav: ') for s in said)
    shutil.copy(a/'audio'/'b7.wav', tmp_path/'c'/'audio'/'a4.wav')
    quiet(a, tmp_path/'p', ways='none', bs=4, test_data=tmp_path/'c', log=said.append)
    assert any(s.startswith('2 test clips are train clips too, byte for byte, such as test/b1.wav: ') for s in said)

def test_folds_of_the_recipe_are_left_out_with_a_folder_to_test_on(pair, tmp_path):
    a,b = pair
    quiet(a, tmp_path/'o', ways='none', bs=4, fold_col='src_file')
    said,no_folds = [],_table_of((b,tmp_path/'b'), lambda d: d[['filename','category']])
    quiet(a, tmp_path/'p', recipe=tmp_path/'o'/'recipe.json', test_data=no_folds, log=said.append)
    assert said[0]==f'fold of the recipe is left out: all of {a} is trained on' and set(pd.read_csv(tmp_path/'p'/'results.csv').fold)=={'test'}
    assert json.loads((tmp_path/'p'/'recipe.json').read_text())['fold'] is None
    for kw,msg in ((dict(fold=1),'fold: expected without test_data, where all of data is trained on, got 1'), (dict(test_col='t'),"test_col: expected without test_data, where all of data is trained on, got 't'"),
                   (dict(fold_col='src_file'),"test_data: fold_col: no column 'src_file'")):
        with pytest.raises(ValueError, match=re.escape(msg)): quiet(a, tmp_path/'q', test_data=no_folds, **kw)

@pytest.mark.parametrize('change,msg,labels', [(lambda d: d.drop(columns='category'), 'test_data: label_col: which column of ', True), (lambda d: d.assign(category=''), "test_data: {}/meta/t.csv: column 'category' is empty in row 2", True),
    ('flat', 'test_data: {} has neither audio/ and meta/*.csv nor a folder for each class', True), ('gone', 'test_data: no such folder: {}', False), (lambda d: d.assign(category='z'), 'test_data: no clip in ', False)])
def test_errors_of_the_folder_to_test_on_name_it(pair, tmp_path, change, msg, labels):
    a,b = pair
    if callable(change): d = _table_of((b,tmp_path/'d'), change)
    else:
        d = tmp_path/'d'
        if change=='flat': d.mkdir(); sf.write(d/'1.wav', np.zeros(900), 8000)
    with pytest.raises((ValueError,FileNotFoundError), match='^'+re.escape(msg.format(d))) as e: quiet(a, tmp_path/'o', test_data=d)
    assert ('Clips without labels cannot be tested on: train a network, keep it by save_spec_model, and specnorm-predict labels them' in str(e.value))==labels

def test_a_folder_to_test_on_may_hold_one_class_or_clip_or_recording(pair, tmp_path):
    a,b = pair
    one = _table_of((a,tmp_path/'a'), lambda d: d.drop(columns='fold').assign(src_file='r'))
    for k,change in dict(cls=lambda d: d[d.category=='x'], clip=lambda d: d.head(1), rec=lambda d: d.drop(columns='fold').assign(src_file='s')).items():
        t = quiet(one, tmp_path/f'o{k}', ways=['none','item'], bs=4, runs=2, test_data=_table_of((b,tmp_path/k), change))
        assert t.verdict.tolist()==['baseline','not established'] and (t.low<=t.accuracy).all() and (t.accuracy<=t.high).all() and (tmp_path/f'o{k}'/'report.html').exists()
    with pytest.raises(ValueError, match='data: expected at least two classes'): quiet(tmp_path/'cls', tmp_path/'o', test_data=b)
    with pytest.raises(ValueError, match='none can be made: all clips are of one recording'): quiet(one, tmp_path/'o')

def test_names_that_meet_in_both_folders_are_told_apart(pair, tmp_path):
    a,b = pair
    c = _table_of((b,tmp_path/'c'), lambda d: d.assign(filename=['test/a0.wav' if f=='b1.wav' else f for f in d.filename], category=['x' if f=='b1.wav' else c for f,c in zip(d.filename, d.category)]))
    (c/'audio'/'test').mkdir(); (c/'audio'/'b1.wav').rename(c/'audio'/'test'/'a0.wav')
    quiet(a, tmp_path/'o', ways='none', bs=4, test_data=c)
    assert {'test/a0.wav','test/test/a0.wav'}<=set(pd.read_csv(tmp_path/'o'/'predictions.csv').filename)

def test_a_fold_or_way_of_another_type_is_named(small, tmp_path):
    with pytest.raises(ValueError, match=re.escape("fold: expected 'all' or folds among [1, 2, 3, 4, 5], got {'a': 1}")): quiet(small, tmp_path/'o', fold={'a':1})
    with pytest.raises(ValueError, match=re.escape("arms.a: way: expected the name of a way or a chain of them, got ['global']")): quiet(small, tmp_path/'o', ways=['a'], arms=dict(a=dict(way=['global'])))

def test_the_order_is_fixed_statistics_without_augmentation_masks_after_normalization(small):
    "Masked values are exactly 0, the mean; statistics do not change by masks and mixing"
    df = read_table(small); valid = split_masks(df, 1)
    plain,masked = experiment_settings(duration=.3),experiment_settings(duration=.3, specaugment=dict(freq=8, n_freq=2, time=6), mixup=.4, mix='waveform')
    stats = [collect_stats(experiment_dls(df, valid, None, s), progress=False) for s in (plain,masked)]
    assert np.array_equal(stats[0].mean, stats[1].mean) and np.array_equal(stats[0].std, stats[1].std)
    dls = experiment_dls(df, valid, way_tfms('global', lambda *a: stats[0], masked), masked)
    names = [type(t).__name__ for t in dls.after_batch.fs]
    assert names.index('AudioNormalize')<names.index('SignalMixUp')<names.index('AudioToSpec')<names.index('SpecNormalize')<names.index('SpecAugment')
    x = dls.one_batch()[0].plain()
    assert ((x==0).all(-1)|(x==0).all(-1).any()).any() and (x==0).float().mean()>.02
    assert (next(iter(dls.valid))[0].plain()!=0).float().mean()>.999

def test_recordings_are_the_unit_where_the_table_names_them(esc10):
    df = read_table(esc10)
    src = pd.read_csv(esc10/'meta'/'esc10.csv', dtype=str)
    assert df.attrs['source']==dict(zip(src.filename, src.src_file)) and 'source' not in df

def test_the_list_of_ways_in_the_help_is_that_of_the_package():
    from specnorm_fastai.cli import _ways
    for w,r in list_ways().iterrows(): assert any(l.split()[:1]==[w] and l.strip().endswith(r['what it does']) for l in _ways.splitlines())

def test_the_recipe_of_a_grown_folder_is_of_all_that_is_in_it(small, tmp_path):
    quiet(small, tmp_path/'o', ways=['none','short'], fold=1, way_options=dict(short=dict(use='sliding', seconds=.1)))
    quiet(small, tmp_path/'o', ways=['pcen'], fold=2, seed=2, way_options=dict(pcen=dict(gain=.8)))  # the options of short are kept
    r = json.loads((tmp_path/'o'/'recipe.json').read_text())
    assert r['ways']==['none','short','pcen'] and r['fold']==['1','2'] and (r['seed'],r['runs'])==(0,3) and set(r['way_options'])=={'short','pcen'} and r['baseline']=='none'
    said = []
    a = compare(small, tmp_path/'o', recipe=tmp_path/'o'/'recipe.json', log=said.append)  # fills the grid
    assert '18 runs' in said[0] and '3 of them done before' in said[0] and a.runs.tolist()==[6,6,6]
    with pytest.raises(ValueError, match="way_options was .*0.1.* is .*0.2"): quiet(small, tmp_path/'o', ways=['short'], way_options=dict(short=dict(use='sliding', seconds=.2)))
    assert quiet(small, tmp_path/'p', recipe=tmp_path/'o'/'recipe.json', ways=['none'], fold=1, runs=1).way.tolist()==['none']  # options that are not used are no matter

def test_tables_of_fewer_runs_are_gone_when_it_is_interrupted(small, tmp_path, monkeypatch):
    quiet(small, tmp_path/'o', ways='none')
    assert (tmp_path/'o'/'report.html').exists()
    import specnorm_fastai.compare as c
    real = c.train_run
    def stop(*a, **kw): raise KeyboardInterrupt
    monkeypatch.setattr(c, 'train_run', stop)
    with pytest.raises(KeyboardInterrupt): quiet(small, tmp_path/'o', ways='item')
    assert not (tmp_path/'o'/'report.html').exists() and not (tmp_path/'o'/'analysis.csv').exists() and len(pd.read_csv(tmp_path/'o'/'results.csv'))==1
    monkeypatch.setattr(c, 'train_run', real)
    assert quiet(small, tmp_path/'o', ways='item').way.tolist()==['none','item'] and (tmp_path/'o'/'report.html').exists()

def test_without_results_json_the_ways_of_the_call_come_first(small, tmp_path):
    quiet(small, tmp_path/'o', ways=['none','global'])
    (tmp_path/'o'/'results.json').unlink()
    assert quiet(small, tmp_path/'o', ways=['none','global']).verdict.tolist()==['baseline','not established']

def test_damaged_files_of_a_folder_are_named(small, tmp_path):
    quiet(small, tmp_path/'o', ways='none')
    f = next((tmp_path/'o'/'runs').iterdir()); good = f.read_text()
    for change in (lambda d: d.pop('predictions'), lambda d: d['row'].update(way=5), lambda d: d.update(history=3), lambda d: d['row'].update(seed='x')):
        d = json.loads(good); change(d); f.write_text(json.dumps(d))
        with pytest.raises(ValueError, match=re.escape(f'{f} is not a run of an experiment')): quiet(small, tmp_path/'o', ways='none')
    f.write_text(good)
    info = json.loads((tmp_path/'o'/'results.json').read_text())
    for part,k,v in (('call','ways',3),('call','ways',[['a']]),('settings','arms',3),('settings','way_options',3)):
        (tmp_path/'o'/'results.json').write_text(json.dumps({**info, part:{**info[part], k:v}}))
        with pytest.raises(ValueError, match=rf'results.json is not .* {part}.{k} is none'): quiet(small, tmp_path/'o', ways='none')
    (tmp_path/'o'/'results.json').write_text('{"settings": {}, "call": []}')
    with pytest.raises(ValueError): quiet(small, tmp_path/'o', ways='none')

@pytest.fixture(scope='module')
def under(small, tmp_path_factory):
    "An experiment with a condition, and what was said of it"
    out,said = tmp_path_factory.mktemp('under')/'o',[]
    quiet(small, out, ways='none', duration=.1, features=dict(kind='mel', n_fft=256, hop_length=128, n_mels=16), conditions={'ends':dict(silence=.1), 'soft':dict(gain=-30., snr=0)}, log=said.append)
    return out,said

def _renamed(d): d['conditions']['other'] = d['conditions'].pop('ends')
def _fewer(d): d['predictions'] = d['predictions'][:4]; d['row']['accuracy'] = np.mean([p['label']==p['predicted'] for p in d['predictions']]); del d['conditions']
def _of_other_clips(d):
    for p in d['predictions']: p['filename'] = 'x'+p['filename']
def _other_labels(d):
    for p in d['predictions']: p['label'] = p['predicted']
    d['row']['accuracy'] = 1.
    for c in d['conditions'].values(): c['accuracy'] = np.mean([a==p['label'] for a,p in zip(c['predicted'], d['predictions'])])

@pytest.mark.parametrize('change,says', [(lambda d: d['row'].update(accuracy=.99), 'accuracy is 0.99'), (lambda d: d['row'].update(accuracy='x'), 'is not a run of'), (lambda d: d['conditions']['ends'].update(accuracy=.99), "accuracy under 'ends'"),
    (lambda d: d['conditions'].pop('ends'), 'its conditions are'), (lambda d: d.pop('conditions'), 'its conditions are'), (_renamed, 'its conditions are'), (lambda d: d.update(conditions=[]), 'is not a run of'),
    (lambda d: d['row'].update(n_train=10**9), 'expected n_train='), (_fewer, 'its conditions are'), (_of_other_clips, 'not of the clips'), (_other_labels, 'not of the clips')])
def test_a_run_that_was_edited_is_refused_and_tables_stay(under, small, tmp_path, change, says):
    shutil.copytree(under[0], out:=tmp_path/'o')
    f = next((out/'runs').iterdir()); d = json.loads(f.read_text()); change(d); f.write_text(json.dumps(d))
    before = {p.name:p.read_bytes() for p in out.glob('*.csv')}
    with pytest.raises(ValueError, match=re.escape(str(f))) as e:
        quiet(small, out, ways='none', duration=.1, features=dict(kind='mel', n_fft=256, hop_length=128, n_mels=16), conditions={'ends':dict(silence=.1), 'soft':dict(gain=-30., snr=0)})
    assert says in str(e.value) and {p.name:p.read_bytes() for p in out.glob('*.csv')}==before

def test_a_condition_that_the_crop_leaves_out_is_told(under):
    said = [l for l in under[1] if 'no answer changed' in l]
    assert len(said)==1 and said[0].startswith('conditions.ends: ')

def test_one_way_alone_is_compared_to_nothing(under):
    text = next(l for l in under[1] if 'Accuracy on' in l)
    assert 'compared to' not in text and 'difference' not in text and 'accuracy %' in text

def test_one_class_to_test_on_is_told(pair, tmp_path):
    said = []
    df = pd.read_csv(pair[1]/'meta'/'t.csv'); (tmp_path/'t'/'meta').mkdir(parents=True)
    df[df.category==df.category[0]].to_csv(tmp_path/'t'/'meta'/'t.csv', index=False); shutil.copytree(pair[1]/'audio', tmp_path/'t'/'audio')
    quiet(pair[0], tmp_path/'o', ways='none', test_data=tmp_path/'t', log=said.append)
    assert any(f"All test clips are of one class, '{df.category[0]}'" in l for l in said)

def test_statistics_say_their_unit(small, tmp_path):
    quiet(small, tmp_path/'o', ways='none', features=dict(kind='mel', n_mels=16, to_db=False))
    assert {v['units'] for v in json.loads((tmp_path/'o'/'stats.json').read_text()).values()}=={'power'}

def test_a_link_out_of_the_folder_is_told(small, tmp_path):
    d = _table(tmp_path/'d', OK, audio=('a.wav',))
    (d/'audio'/'b.wav').symlink_to(next((small/'audio').iterdir()).resolve())
    with pytest.raises(ValueError, match="row 3: 'b.wav' is a link to .*, which lies outside of .*audio: copy the file"): read_table(d)

def _folds(tmp_path, folds, cols='filename,fold,category', extra=None):
    "Eight clips of two classes with these folds"
    rows = [f"{'ab'[i%2]}{i}.wav,{f},{'xy'[i%2]}"+('' if extra is None else f',{extra[i]}') for i,f in enumerate(folds)]
    (tmp_path/'audio').mkdir(parents=True); (tmp_path/'meta').mkdir()
    (tmp_path/'meta'/'t.csv').write_text('\n'.join([cols+('' if extra is None else ',src_file'),*rows])+'\n')
    for i in range(len(folds)): sf.write(tmp_path/'audio'/f"{'ab'[i%2]}{i}.wav", np.random.default_rng(i).normal(size=8000)*.1, 16000)
    return tmp_path

def test_folds_are_held_out_as_the_table_spells_them(tmp_path):
    d = _folds(tmp_path/'d', ['01','01','1','1','2','2','2','2'])
    assert sorted(read_table(d).fold.unique())==['01','1','2']
    with pytest.raises(ValueError, match="which of .*'train', 'valid'.* is to be held out"): quiet(_folds(tmp_path/'e', ['train']*4+['valid']*4), tmp_path/'o')
    with pytest.raises(ValueError, match='each once'): quiet(_folds(tmp_path/'f', [1,1,1,1,2,2,2,2]), tmp_path/'o', fold=['1',1])
    said = []
    for f in (1,'1','01'): quiet(tmp_path/'f', tmp_path/'p', ways='none', fold=f, bs=2, log=said.append)  # one and the same
    assert len(list((tmp_path/'p'/'runs').iterdir()))==1
    with pytest.raises(ValueError, match="two or more clips to validate on, fold 1 holds one"): quiet(_folds(tmp_path/'g', [1,2,2,2,3,3,3,3]), tmp_path/'q', fold='all')
    assert not (tmp_path/'q'/'runs').exists() or not list((tmp_path/'q'/'runs').iterdir())

def test_test_clips_are_never_trained_on(tmp_path):
    d = _folds(tmp_path/'d', [1,1,2,2,1,1,2,2], extra=['yes']*4+['no']*4)
    with pytest.raises(ValueError, match='fold: expected without test clips'): quiet(d, tmp_path/'o', test_col='src_file', fold='all')

def test_recordings_on_both_sides_are_announced_and_kept_together_where_folds_are_made(tmp_path):
    said = []
    quiet(_folds(tmp_path/'d', [1,1,1,1,2,2,2,2], extra=['r','r','s','s','r','t','u','u']), tmp_path/'o', ways=['none','item'], bs=2, log=said.append)
    assert any('1 recording stands on both sides of fold 1' in s for s in said)
    d = _folds(tmp_path/'e', [0]*40, extra=[f'r{i//4}' for i in range(40)])
    t = d/'meta'/'t.csv'; t.write_text(t.read_text().replace('fold','other'))
    df = read_table(d)
    assert df.fold.nunique()==5 and (df.groupby(df.filename.map(df.attrs['source'])).fold.nunique()==1).all()

def test_clips_of_one_name_in_both_folders(tmp_path):
    a,b = (_folds(tmp_path/k, [1]*8, extra=[f'{k}{i//2}' for i in range(8)]) for k in 'ab')
    for f in (b/'audio').iterdir(): x,sr = sf.read(f); sf.write(f, x[::-1], sr)
    t = quiet(a, tmp_path/'o', ways=['none','item'], test_data=b, bs=4)
    assert t.runs.tolist()==[1,1] and all(f.startswith('test/') for f in pd.read_csv(tmp_path/'o'/'predictions.csv').filename)

def test_networks_that_have_not_learned_are_told_of(small, tmp_path):
    said = []
    quiet(small, tmp_path/'o', ways=['none','item'], log=said.append)
    assert any('No way is clearly above chance, 12.5 %' in s and 'has 1 step' in s for s in said)

def test_the_fold_that_was_named_is_held_out_not_one_of_like_value(tmp_path):
    d = _folds(tmp_path/'d', ['01']*4+['1']*4+['2']*4)
    quiet(d, tmp_path/'o', ways='none', fold='1', bs=4)
    p = pd.read_csv(tmp_path/'o'/'predictions.csv', dtype=str)
    assert set(p.fold)=={'1'} and sorted(p.filename)==sorted(f"{'ab'[i%2]}{i}.wav" for i in range(4,8))
    quiet(d, tmp_path/'p', ways='none', fold='all', bs=4)
    assert set(pd.read_csv(tmp_path/'p'/'results.csv', dtype=str).fold)=={'01','1','2'}

def test_a_wrong_call_does_not_spoil_a_folder_without_results_json(small, tmp_path):
    quiet(small, tmp_path/'o', ways='none')
    (tmp_path/'o'/'results.json').unlink()
    with pytest.raises(ValueError, match='is a run of other settings'): quiet(small, tmp_path/'o', ways='none', epochs=2)
    assert quiet(small, tmp_path/'o', ways='none').runs.tolist()==[1]

def test_networks_are_checked_before_anything_is_written(small, tmp_path):
    for kw,msg in ((dict(arch='smal'),'no network'), (dict(arch_options=dict(widht=3)),'arch_options: '), (dict(arch_options=dict(width='a')),'width')):
        with pytest.raises(ValueError, match=msg): quiet(small, tmp_path/'o', **kw)
    assert not (tmp_path/'o').exists()


ARMS = dict(plain=dict(way='global'), wide=dict(way='item+global', arch_options=dict(width=8), bs=16), level=dict(way='frequency', waveform='none', features='spec', sample_rate=8000, duration=False))
def test_arms_are_run_with_settings_of_their_own(small, tmp_path):
    a = quiet(small, tmp_path/'a', ways=['global','plain','wide','level'], arms=ARMS, conditions=dict(soft=dict(gain=-20)))
    assert list(a.way)==['global','plain','wide','level']
    rows = pd.read_csv(tmp_path/'a'/'results.csv').set_index('way')
    assert rows.loc['global','loss']==pytest.approx(rows.loc['plain','loss'], rel=1e-4) and list(rows.bs)==[32,32,16,32] and list(rows.duration)==[.3,.3,.3,pytest.approx(.5, abs=.01)] and rows.arch_options['wide']=='{"width": 8}'
    alone = quiet(small, tmp_path/'b', ways=['item+global'], arch_options=dict(width=8), bs=16)
    assert pd.read_csv(tmp_path/'b'/'results.csv').loss.item()==pytest.approx(rows.loss['wide'], rel=1e-4)
    quiet(small, tmp_path/'c', ways=['frequency'], waveform='none', features='spec', sample_rate=8000, duration=None)
    assert pd.read_csv(tmp_path/'c'/'results.csv').loss.item()==pytest.approx(rows.loss['level'], rel=1e-4)  # its statistics are its own
    cond = pd.read_csv(tmp_path/'a'/'conditions.csv')
    assert list(cond.way)==['global','plain','wide','level'] and set(cond.condition)=={'soft'}
    page = (tmp_path/'a'/'report.html').read_text()
    assert 'Other conditions' in page and '4 arms' in page and 'Arm <bdi>level</bdi>' in page and '<bdi>level</bdi>: of other features or another duration' in page
    told = pd.read_csv(tmp_path/'a'/'conditions-analysis.csv')
    assert list(told.condition.unique())==['soft','all, against clean'] and len(told)==8
    soft,clean = cond.set_index('way').accuracy,rows.accuracy
    assert np.allclose(told[told.condition=='soft'].set_index('way').accuracy, soft[told.way.unique()]) and np.allclose(told[told.condition!='soft'].set_index('way').accuracy, (soft-clean)[told.way.unique()])
    said = []
    quiet(small, tmp_path/'a', recipe=tmp_path/'a'/'recipe.json', epochs=None, runs=None, duration=None, arch=None, log=said.append)  # the recipe that it wrote holds the arms
    assert '4 of them done before' in said[0]
    with pytest.raises(ValueError, match='arms was'): quiet(small, tmp_path/'a', ways=['wide'], arms=dict(wide=dict(way='item')), conditions=dict(soft=dict(gain=-20)))
    more = quiet(small, tmp_path/'a', ways=['other'], arms=dict(other=dict(way='item')), conditions=dict(soft=dict(gain=-20)))
    assert list(more.way)==['global','plain','wide','level','other']
    same = dict(wide=dict(ARMS['wide'], epochs=1))  # told in other words
    assert list(quiet(small, tmp_path/'a', ways=['wide'], arms=same, conditions=dict(soft=dict(gain=-20))).way)==list(more.way)

def test_arms_alone_are_what_is_compared(small, tmp_path):
    (r:=tmp_path/'r.toml').write_text('[arms.a]\nway = "global"\n[arms.b]\nway = "item"\n')
    assert list(quiet(small, tmp_path/'out', recipe=r).way)==['a','b']
    (r2:=tmp_path/'r2.toml').write_text('ways = ["a"]\n'+r.read_text())
    with pytest.raises(ValueError, match=re.escape("arms: expected each among the ways ['a'], got 'b' beside them")): quiet(small, tmp_path/'out2', recipe=r2)
    assert list(quiet(small, tmp_path/'out3', recipe=r2, ways=['b']).way)==['b']

@pytest.mark.parametrize('own,msg', [(dict(features=dict(kind='mel', n_fft=32768)), 'arms.a: '), (dict(sample_rate=400), 'arms.a: ')])
def test_an_arm_that_cannot_be_is_told_before_anything_is_trained(small, tmp_path, own, msg):
    with pytest.raises(ValueError, match=msg): quiet(small, tmp_path/'out', ways=['none','a'], arms=dict(a=dict(way='none', **own)))
    assert not list((tmp_path/'out'/'runs').glob('*.json'))

@pytest.mark.parametrize('kw,msg', [(dict(conditions=dict(ok=dict(gain=-6), c=dict(keep=.001))), "conditions.c: with {'keep': 0.001} "), (dict(specaugment=dict(freq=80)), 'freq: masks of up to 80 rows'),
    (dict(specaugment=dict(freq=50), arms=dict(a=dict(way='item'), b=dict(way='global', features=dict(kind='mel', n_mels=16))), ways=['a','b']), 'arms.b: freq: masks of up to 50 rows do not fit the 16'),
    (dict(conditions=dict(c=dict(keep=.1)), arms=dict(a=dict(way='item'), b=dict(way='global', features=dict(kind='mel', n_fft=4096))), ways=['a','b']), 'arms.b: conditions.c: ')])
def test_what_cannot_be_trained_or_predicted_is_told_before_anything_is_trained(small, tmp_path, kw, msg):
    with pytest.raises(ValueError, match='^'+re.escape(msg)): quiet(small, tmp_path/'out', **{'ways':['none','global'], **kw})
    assert not list((tmp_path/'out'/'runs').glob('*.json'))

def test_what_is_tried_changes_no_run(small, tmp_path, monkeypatch):
    import random,torch
    from specnorm_fastai.compare import _Data
    kw = dict(ways=['none','a'], arms=dict(a=dict(way='global', mixup=.4, mix='between_class', speed=1.2, roll=True, specaugment=dict(freq=8), crops=2)), conditions=dict(c=dict(keep=.2)), epochs=2, bs=8)
    def drawn(seed):
        random.seed(seed); np.random.seed(seed); torch.manual_seed(seed)
        quiet(small, tmp_path/str(seed), **kw)
        return pd.read_csv(tmp_path/str(seed)/'predictions.csv').p_label,pd.read_csv(tmp_path/str(seed)/'predictions-conditions.csv').p_label
    tried = drawn(1)
    monkeypatch.setattr(_Data, 'try_way', lambda self, name: None)
    for a,b in zip(tried, drawn(2)): assert np.allclose(a, b, atol=1e-4)  # threads may sum in another order

def test_runs_of_an_arm_are_of_its_way(small, tmp_path):
    from specnorm_fastai.compare import _digest
    arm = lambda way: dict(ways=['x'], arms=dict(x=dict(way=way)))
    quiet(small, tmp_path/'o', **arm('global'))
    info = json.loads((tmp_path/'o'/'results.json').read_text())
    (tmp_path/'o'/'results.json').unlink()
    for kw,msg in ((arm('item'),'is a run of other settings'), (dict(ways='none'),"is a run of 'x', which is no way and no arm of this call")):
        with pytest.raises(ValueError, match=msg): quiet(small, tmp_path/'o', **kw)
    said = []
    quiet(small, tmp_path/'o', **arm('global'), log=said.append)
    assert any('1 of them done before' in s for s in said)
    f = next((tmp_path/'o'/'runs').iterdir()); d = json.loads(f.read_text())  # as an earlier version wrote it
    assert d['settings']==_digest(info['settings'], 'x')!=_digest(info['settings'], 'x', False)
    f.write_text(json.dumps(dict(d, settings=_digest(info['settings'], 'x', False))))
    quiet(small, tmp_path/'o', **arm('global'), log=said.append)
    assert sum('1 of them done before' in s for s in said)==2
    (tmp_path/'o'/'results.json').unlink()
    with pytest.raises(ValueError, match='is a run of other settings'): quiet(small, tmp_path/'o', **arm('global'))

@pytest.mark.parametrize('name', ['results.csv','predictions.csv','conditions-analysis.csv','report.html','recipe.json','examples.npz'])
def test_files_of_others_are_not_written_over(small, tmp_path, name):
    (tmp_path/'o').mkdir(); (f:=tmp_path/'o'/name).write_text('mine')
    with pytest.raises(ValueError, match=re.escape(f'out: {f} would be written over')): quiet(small, tmp_path/'o', ways='none')
    assert f.read_text()=='mine' and [p.name for p in (tmp_path/'o').iterdir()]==[name]

def test_every_file_of_a_folder_is_one_that_is_looked_for(small, tmp_path):
    from specnorm_fastai.compare import _tables
    quiet(small, tmp_path/'o', ways=['none','item'], conditions=dict(c=dict(gain=-6)))
    assert {p.name for p in (tmp_path/'o').iterdir()}=={*_tables,'report.html','recipe.json','stats.json','examples.npz','results.json','runs','.lock'}

def test_a_folder_in_the_place_of_the_lock_is_named(small, tmp_path):
    (tmp_path/'o'/'.lock').mkdir(parents=True)
    with pytest.raises(OSError, match=re.escape(f"out: expected a folder that can be locked by the file {tmp_path/'o'/'.lock'}, got: ")): quiet(small, tmp_path/'o', ways='none')

def test_a_long_name_of_an_arm_is_a_file(small, tmp_path):
    name = 'x'*300
    assert list(quiet(small, tmp_path/'out', ways=[name], arms={name:dict(way='none')}).way)==[name]

@pytest.mark.parametrize('arms,msg', [(dict(a=dict(epochs=3)), "arms.a: expected the way"), (dict(item=dict(way='global')), "'item' is no name for an arm"), (dict(a=dict(way='globl')), "did you mean 'global'"),
    (dict(a=dict(way='global', epoch=3)), "arms.a: 'epoch' is not known; did you mean 'epochs'"), (dict(a=dict(way='global', epochs=0)), 'arms.a: epochs: expected a whole number'), ([1], 'arms: expected a table'),
    ({'a+b':dict(way='global')}, 'one without +'), ({'a ':dict(way='global')}, 'outer spaces'), ({1:dict(way='global')}, '1 is no name'), (dict(a=dict(way='global', conditions={})), "arms.a: 'conditions' is not known"),
    (dict(a=dict(way='global', arch='smal')), "arms.a: arch: no network 'smal'")])
def test_arms_that_are_none_are_refused(small, tmp_path, arms, msg):
    with pytest.raises(ValueError, match=re.escape(msg)): quiet(small, tmp_path/'out', ways=['global'], arms=arms)
    assert not (tmp_path/'out').exists()

ROOT = Path(__file__).resolve().parent.parent
@pytest.mark.parametrize('recipe', sorted((ROOT/'experiments').glob('*.toml')), ids=lambda p: p.stem)
def test_recipes_of_the_experiments_can_be_run(recipe):
    call,s = _arguments(dict(recipe=recipe), False)
    says = [l for l in recipe.read_text().splitlines() if l.startswith('#')]
    cmd = next(l for l in says if 'specnorm-compare' in l)
    assert f'--recipe experiments/{recipe.name} ' in cmd and (call['runs']*s['members']>=2 or call['fold']=='all') and call['baseline'] in call['ways'] and s['duration']

def test_the_published_experiment_on_a_miniature_in_the_layout_of_esc50(tmp_path):
    data,rng,rows = tmp_path/'ESC-50-master',np.random.default_rng(0),[]
    for d in ('audio','meta'): (data/d).mkdir(parents=True)
    for fold in range(1, 6):
        for target,name in enumerate(('dog','rain','helicopter','sea_waves','rooster')):
            f = f'{fold}-{1000+10*fold+target}-A-{target}.wav'
            sf.write(data/'audio'/f, np.r_[rng.normal(size=44100*3)*.1, np.zeros(44100*2)], 44100, subtype='PCM_16')
            rows.append(dict(filename=f, fold=fold, target=target, category=name, esc10=True, src_file=1000+10*fold+target, take='A'))
    pd.DataFrame(rows).to_csv(data/'meta'/'esc50.csv', index=False)
    r = run('--data', data, '--recipe', ROOT/'experiments'/'blog.toml', '--fold', 1, '--runs', 1, '--epochs', 1, '--bs', 8, '--out', tmp_path/'out')
    assert r.returncode==0, r.stderr
    rows = pd.read_csv(tmp_path/'out'/'results.csv')
    assert list(rows.way)==['as it is','unit variance, global','unit variance, per frequency'] and list(rows.waveform)==['none','standard','standard'] and set(rows.arch)=={'xresnet18'} and set(rows.n_train)=={20} and set(rows.n_valid)=={5}
    with np.load(tmp_path/'out'/'examples.npz') as z: assert z['before'].shape[1:]==(201,401)
