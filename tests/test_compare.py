"The experiment: whole runs, kept runs, and messages for what cannot run"
import json,os,signal,subprocess,sys,time
from pathlib import Path
import numpy as np, pandas as pd, pytest, soundfile as sf
from specnorm_fastai.all import *
from specnorm_fastai.compare import _even_folds

COMPARE = [sys.executable,'-c','import sys; from specnorm_fastai.cli import compare; sys.exit(compare())']
QUICK = ['--epochs','1','--runs','1','--workers','0','--duration','0.3']
def run(*args, **kw): return subprocess.run([*COMPARE,*map(str,args)], capture_output=True, text=True, timeout=300, **kw)
def quiet(*a, **kw): return compare(*a, **{**dict(epochs=1, runs=1, workers=0, duration=.3, log=lambda s: None), **kw})

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
    assert '%' in r.stdout and '100.00%' in r.stdout.replace(' ','')  # progress while it works
    rows,preds,info = pd.read_csv(out/'results.csv'),pd.read_csv(out/'predictions.csv'),json.loads((out/'results.json').read_text())
    assert list(rows.columns)==['way','fold','seed','epochs','accuracy','seconds'] and list(rows.way)==['none','global','frequency']
    assert list(preds.columns)==['way','fold','seed','filename','label','predicted','probability'] and len(preds)==3*8
    for w,g in preds.groupby('way'):
        assert np.isclose((g.label==g.predicted).mean(), rows.accuracy[rows.way==w].item()) and g.probability.between(0,1).all()
    df = pd.read_csv(small/'meta'/'synthetic.csv')
    assert set(preds.filename)==set(df.filename[df.fold==1])
    s = info['settings']
    assert s['epochs']==1 and s['features']=='mel' and s['duration']==.3 and s['clips']==40 and info['versions']['torch'] and info['summary'][0]['way']=='none' and info['call']['workers']==0 and info['call']['runs']==1
    for f in ('accuracy.png','stats.png'): assert (out/f).read_bytes()[:4]==b'\x89PNG'

def test_called_again_it_trains_nothing(done, small):
    out,_ = done
    before = {f:f.stat().st_mtime_ns for f in (out/'runs').iterdir()}
    r = run('--data', small, '--out', out, *QUICK)
    assert r.returncode==0 and '3 of them done before' in r.stdout and before=={f:f.stat().st_mtime_ns for f in (out/'runs').iterdir()}

def test_other_settings_in_the_same_folder_are_refused(done, small):
    out,_ = done
    r = run('--data', small, '--out', out, '--epochs','2','--runs','1','--workers','0','--duration','0.3')
    assert r.returncode==1 and 'epochs was 1, is 2' in r.stderr and 'Traceback' not in r.stderr

def test_more_runs_are_added_to_those_there(small, tmp_path):
    quiet(small, tmp_path/'o', ways='none')
    a = pd.read_csv(tmp_path/'o'/'results.csv')
    assert quiet(small, tmp_path/'o', ways=['none','global'], runs=2).runs.tolist()==[2,2]
    b = pd.read_csv(tmp_path/'o'/'results.csv')
    assert len(b)==4 and b.query("way=='none' and seed==0").accuracy.item()==a.accuracy.item()

def test_a_seed_repeats_a_run(small, tmp_path):
    for o in 'ab': quiet(small, tmp_path/o, ways='global')
    a,b = (pd.read_csv(tmp_path/o/'predictions.csv') for o in 'ab')
    assert (a.predicted==b.predicted).all() and np.allclose(a.probability, b.probability, atol=1e-4)  # threads may sum in another order

def test_interrupted_it_keeps_finished_runs(small, tmp_path):
    p = subprocess.Popen([*COMPARE,'--data',str(small),'--out',str(tmp_path/'o'),'--epochs','1','--runs','30','--workers','0','--duration','0.3'],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a background shell ignores it
    t = time.time()
    while not list((tmp_path/'o'/'runs').glob('*.json')) and time.time()-t<120 and p.poll() is None: time.sleep(.05)
    p.send_signal(signal.SIGINT)
    _,err = p.communicate(timeout=60)
    assert p.returncode==130 and 'Finished runs are kept' in err and 'Traceback' not in err
    n = len(list((tmp_path/'o'/'runs').glob('*.json')))
    assert 1<=n<90 and len(pd.read_csv(tmp_path/'o'/'results.csv'))==n
    table = quiet(small, tmp_path/'o', runs=1)
    assert table.runs.tolist()==[1,1,1] and not list((tmp_path/'o').rglob('.*-*'))

def test_one_folder_a_class(tmp_path):
    rng = np.random.default_rng(0)
    for c in ('a','b'):
        (tmp_path/'d'/c).mkdir(parents=True)
        for i in range(10): sf.write(tmp_path/'d'/c/f'{i}.wav', rng.normal(size=rng.integers(4000,9000))*.1, 8000)
    df = read_table(tmp_path/'d')
    assert set(df.label)=={'a','b'} and df.groupby(['fold','label']).size().tolist()==[2]*10 and (df.fold==read_table(tmp_path/'d').fold).all()
    assert quiet(tmp_path/'d', tmp_path/'o', fold='2').runs.tolist()==[1,1,1]

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

@pytest.mark.parametrize('args,msg', [(['--epochs','0'],'epochs: expected at least 1'), (['--runs','0'],'runs'), (['--bs','1'],'bs'), (['--lr','-1'],'lr'),
    (['--duration','-2'],'duration'), (['--duration','5000'],'duration: expected seconds'), (['--ways','best'],"ways: expected some of"), (['--workers','-1'],'workers'),
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
def test_nan_in_one_file_is_named_also_from_a_worker(small, tmp_path, capsys, workers):
    import shutil
    from specnorm_fastai.cli import compare as cli
    shutil.copytree(small, tmp_path/'d')
    f = sorted((tmp_path/'d'/'audio').iterdir())[20]
    sf.write(f, np.array([0.,.1,np.nan]*3000), 16000, subtype='FLOAT')
    assert cli(['--data',str(tmp_path/'d'),'--out',str(tmp_path/'o'),'--epochs','1','--runs','1','--workers',str(workers),'--duration','.3'])==1
    err = capsys.readouterr().err
    assert f'NaN or Inf in 3000 of 9000 samples of {f}' in err and 'Traceback' not in err

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

def test_two_processes_in_one_folder_lose_no_run(small, tmp_path):
    ps = [subprocess.Popen([*COMPARE,'--data',str(small),'--out',str(tmp_path/'o'),*QUICK,'--ways','none','global','--seed',str(s)], stdout=subprocess.DEVNULL) for s in (0,5)]
    assert [p.wait(timeout=300) for p in ps]==[0,0]
    quiet(small, tmp_path/'o', ways='none')
    assert len(pd.read_csv(tmp_path/'o'/'results.csv'))==4==len(list((tmp_path/'o'/'runs').iterdir()))

def test_the_table_is_read_as_it_is_spelled(tmp_path):
    d = _table(tmp_path/'d', ['01.wav,1,01,yes','1.wav,2,1,no','02.wav,1,None,FALSE','2.wav,2,NA,1'], 'filename,fold,category,test', ('01.wav','1.wav','02.wav','2.wav'))
    (d/'meta'/'._t.csv').write_text('junk')
    df = read_table(d, test_col='test')
    assert df.label.tolist()==['01','1','None','NA'] and df.fold.tolist()==[1,2,1,2] and df.test.tolist()==[True,False,False,True]

def test_one_file_under_two_names_and_an_odd_test_value_are_refused(tmp_path):
    with pytest.raises(ValueError, match='listed more than once'): read_table(_table(tmp_path/'d', ['a.wav,1,x','./a.wav,2,y']))
    with pytest.raises(ValueError, match="test_col: expected true or false .* got '2' in row 3"): read_table(_table(tmp_path/'e', ['a.wav,0,x','b.wav,2,y']), test_col='fold')

def test_folds_that_were_made_are_announced(tmp_path):
    said = []
    for c in 'ab':
        (tmp_path/'d'/c).mkdir(parents=True)
        for i in range(10): sf.write(tmp_path/'d'/c/f'{i}.wav', np.random.default_rng(i).normal(size=8000)*.1, 16000)
    compare(tmp_path/'d', tmp_path/'o', ways='none', epochs=1, runs=1, workers=0, bs=8, log=said.append)
    assert 'five folds were made' in said[0] and any('One run has no spread' in s for s in said)
