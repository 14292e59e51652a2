"AudioCache: what comes out is what would have been read, whoever shares it and whatever becomes of the files, of the processes and of the cache"
import multiprocessing,os,pickle,shutil,signal,subprocess,sys,tempfile,textwrap,threading,time,warnings
from pathlib import Path
import lmdb,numpy as np,pandas as pd,pytest,soundfile as sf,torch
from fastai.vision.all import CategoryBlock,ColReader,DataBlock,IndexSplitter,load_learner
from specnorm_fastai.all import *
import specnorm_fastai.cache as C

def write(f, seed=0, n=4000, sr=22050, ch=2, **kw):
    sf.write(f, np.random.default_rng(seed).uniform(-.5, .5, (n,ch)), sr, **kw)
    return f

def old(*files):
    "Wait until the files can no longer change unseen"
    while any(C._settles_in(os.stat(f)) for f in files): time.sleep(.02)

@pytest.fixture
def files(tmp_path):
    (tmp_path/'a').mkdir()
    fs = [write(tmp_path/'a'/f'{i}.{"flac" if i%2 else "wav"}', i, 3000+501*i, (22050,16000,44100)[i%3], 1+i%2) for i in range(9)]
    old(*fs)
    return fs

@pytest.fixture
def cache(tmp_path):
    c = AudioCache(tmp_path/'c', max_bytes=2e8)
    yield c
    c.close()

def plain(f, **kw): return C._reader(kw.get('sample_rate', 16000), kw.get('force_mono', True))(f)
def same(a, b):
    assert torch.equal(a.plain(), b.plain()) and type(a) is type(b) and a.dtype==b.dtype==torch.float32 and a.shape==b.shape
    assert {k:v for k,v in vars(a).items() if v is not None}=={k:v for k,v in vars(b).items() if v is not None}

def run(code, *args, cwd=None, **kw):
    return subprocess.run([sys.executable,'-c',textwrap.dedent(code),*map(str, args)], capture_output=True, text=True, cwd=cwd, timeout=120, **kw)

# what comes out

@pytest.mark.parametrize('how', [dict(), dict(sample_rate=None), dict(sample_rate=8000, force_mono=False), dict(sample_rate=None, force_mono=False)])
def test_a_miss_and_a_hit_are_to_the_bit_what_is_read_without_a_cache(files, cache, how):
    for f in files: same(cache.open(f, **how), plain(f, **how))
    for written in (False,True):
        if written: cache.close()  # from the file, not from what waits to be written
        for f in files: same(cache.open(str(f), **how), plain(str(f), **how))
        assert cache.info()['hits']==9

def test_what_is_handed_out_is_private(files, cache):
    for _ in range(3):
        x = cache.open(files[0])
        same(x, plain(files[0]))
        x.mul_(0); x.apply_gain(3.)
    a,b = cache.open(files[0]),cache.open(files[0])
    assert a.data_ptr()!=b.data_ptr() and a.is_contiguous()
    cache.close()
    assert a.plain().sum()!=0  # stays when the map is gone

def test_settings_are_entries_of_their_own(files, cache):
    for how in (dict(sample_rate=8000), dict(sample_rate=16000), dict(force_mono=False), dict(sample_rate=None)):
        for _ in range(2): same(cache.open(files[1], **how), plain(files[1], **how))
    assert cache.info()['clips']==4

def test_another_version_of_a_decoder_is_another_entry(files, cache, monkeypatch):
    cache.fill(files[:2], progress=False)
    monkeypatch.setattr('soxr.__version__', '0.0.0')
    C._how.cache_clear(); C._versions.cache_clear()
    try:
        cache.open(files[0])
        assert (cache.info()['misses'],cache.info()['clips'])==(1,3)
        assert cache.tidy()==2 and cache.info()['clips']==1  # those of the versions that are no more
    finally: monkeypatch.undo(); C._how.cache_clear(); C._versions.cache_clear()

def test_relative_paths_and_home_are_the_same_file(files, cache, monkeypatch):
    monkeypatch.chdir(files[0].parent); monkeypatch.setenv('HOME', str(files[0].parent))
    cache.open(files[0])
    x = cache.open(Path('0.wav')); y = cache.open('~/0.wav')
    assert cache.info()['hits']==2 and (x.fn,y.fn)==('0.wav','~/0.wav')

# never stale

def test_the_same_size_and_time_do_not_hide_a_change(tmp_path, cache):
    f = write(tmp_path/'x.wav', 1); old(f); st = f.stat()
    same(cache.open(f), plain(f)); cache.flush()
    write(f, 2); os.utime(f, ns=(st.st_atime_ns,st.st_mtime_ns))
    assert (f.stat().st_size,f.stat().st_mtime_ns)==(st.st_size,st.st_mtime_ns)
    same(cache.open(f), plain(f)); old(f)
    for _ in range(2): same(cache.open(f), plain(f))
    assert cache.info()['clips']==1  # in place of the old one

def test_a_replaced_file_and_a_link_that_leads_elsewhere_are_read_anew(tmp_path, cache):
    a,b,link = write(tmp_path/'a.wav', 1),write(tmp_path/'b.wav', 2),tmp_path/'l.wav'
    os.utime(b, ns=(a.stat().st_atime_ns,a.stat().st_mtime_ns)); old(a, b)
    link.symlink_to(a); same(cache.open(link), plain(link)); cache.flush()
    link.unlink(); link.symlink_to(b); same(cache.open(link), plain(link)); same(cache.open(b), plain(b))
    same(cache.open(a), plain(a)); os.replace(b, a); same(cache.open(a), plain(a))

def test_a_file_changed_within_a_tick_is_not_kept(tmp_path, cache, monkeypatch):
    f = tmp_path/'x.wav'
    with monkeypatch.context() as m:
        m.setattr(C.time, 'time_ns', lambda: f.stat().st_ctime_ns+10**7)  # 10 ms after each change, however slow the machine is
        for k in range(20): write(f, k); same(cache.open(f), plain(f))
        assert cache.info()['clips']==0
    old(f); cache.open(f)
    assert cache.info()['clips']==1

def test_coarse_clocks_wait_longer():
    from types import SimpleNamespace as S
    now = time.time_ns()
    st = lambda t: S(st_ctime_ns=t, st_mtime_ns=t)
    assert C._settles_in(st(now//10**9*10**9))>.9 and C._settles_in(st((now-10**9)|1))==0 and C._settles_in(st(now|1))>.05
    assert C._settles_in(st(now//10**9*10**9-3*10**9))==0 and C._settles_in(st((now+10**12)|1))>900

def test_a_file_that_changes_while_it_is_decoded_is_not_kept(files, cache, monkeypatch):
    real = C._reader(16000, True)
    def slow(fn): x = real(fn); write(files[0], 77); return x
    monkeypatch.setattr(C, '_reader', lambda *a: slow)
    cache.open(files[0]); monkeypatch.undo()
    old(files[0]); same(cache.open(files[0]), plain(files[0]))

# errors

def test_errors_are_those_of_the_file_and_not_kept(tmp_path, cache):
    (tmp_path/'e.wav').touch(); (tmp_path/'b.wav').write_text('none'); (tmp_path/'d.wav').mkdir()
    for f in ('missing.wav','e.wav','b.wav','d.wav'):
        for _ in range(2):
            with pytest.raises((ValueError,FileNotFoundError)) as a: plain(tmp_path/f)
            with pytest.raises(a.type) as b: cache.open(tmp_path/f)
            assert str(a.value)==str(b.value)
    with pytest.raises(TypeError): cache.open(3)
    assert cache.info()['clips']==0

def test_a_file_that_is_gone_is_an_error(files, cache):
    cache.fill(files, progress=False); files[0].unlink()
    with pytest.raises(FileNotFoundError, match='0.wav'): cache.open(files[0])

@pytest.mark.parametrize('n_workers', [0,2])
def test_fill_names_all_bad_files_and_keeps_the_others(files, cache, tmp_path, n_workers):
    bad = [tmp_path/f'bad{i}.wav' for i in range(12)]
    for b in bad: b.write_text('x')
    with pytest.raises(ValueError) as e: cache.fill([*files, *bad], n_workers=n_workers, progress=False)
    assert all(b.name in str(e.value) for b in bad) and '12 audio files' in str(e.value)
    assert cache.info()['clips']==9
    for f in files: same(cache.open(f), plain(f))
    assert cache.info()['hits']==9 and cache.info()['misses']==0

def test_fill_waits_for_files_written_just_now(tmp_path, cache):
    fs = [write(tmp_path/f'n{i}.wav', i) for i in range(3)]
    assert cache.fill(fs, progress=False).info()['clips']==3

# DataBlocks

def blocks(files, cache, batch_tfms=None, **kw):
    df = pd.DataFrame(dict(path=[str(f) for f in files], y=[str(i%2) for i in range(len(files))]))
    dls = DataBlock(blocks=(AudioBlock(cache=cache), CategoryBlock), get_x=ColReader('path'), get_y=ColReader('y'),
                    splitter=IndexSplitter(range(6)), batch_tfms=batch_tfms).dataloaders(df, bs=2, device='cpu', **kw)
    return df,dls

@pytest.mark.parametrize('workers', [0,2])
def test_batches_and_statistics_are_the_same(files, cache, workers):
    want = [b[0] for b in blocks(files, None)[1].valid]
    _,dls = blocks(files, cache, num_workers=workers)
    for _ in range(3):
        for a,b in zip((b[0] for b in dls.valid), want): assert torch.equal(a.plain(), b.plain()) and torch.equal(a.lengths, b.lengths) and a.fn==b.fn and a.sr==b.sr
    assert cache.info()['clips']>=6  # what workers kept is there for all
    hits = cache.info()['misses']
    for f in files[:6]: cache.open(f)
    assert cache.info()['misses']==hits

def test_spawned_workers_share_it(files, tmp_path):
    code = """
    import sys
    from fastai.vision.all import *
    from specnorm_fastai.all import *
    def label(f): return 'ab'[int(f.stem)%2]
    if __name__=='__main__':
        c = AudioCache(sys.argv[1], max_bytes=1e8)
        dls = DataBlock(blocks=(AudioBlock(cache=c), CategoryBlock), get_items=get_audio_files, get_y=label, splitter=IndexSplitter(range(6))).dataloaders(
            sys.argv[2], bs=2, num_workers=2, multiprocessing_context='spawn', device='cpu')
        for b in dls.valid: pass
        h = c.info()['hits']
        x = [c.open(f) for f in dls.valid_ds.items]
        print(c.info()['hits']-h, c.check())
    """
    (tmp_path/'s.py').write_text(textwrap.dedent(code))
    r = subprocess.run([sys.executable,'s.py','c','a'], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert r.stdout.split(maxsplit=1)==['6','[]\n'], r.stderr[-2000:]

def test_inputs_of_every_kind_still_work(files, cache):
    df,dls = blocks(files, cache)
    want = plain(files[3]).plain()
    for item in (files[3], str(files[3]), df.iloc[3], AudioTensor.create(files[3])): assert torch.equal(dls.test_dl([item]).one_batch()[0][0].plain(), want)
    oa = OpenAudio(files, cache=cache, sample_rate=16000, force_mono=True)
    same(oa(3), plain(files[3])); assert oa.decode(3)==files[3]

def test_cache_takes_a_folder_and_rejects_the_rest(files, tmp_path):
    b = AudioBlock(cache=tmp_path/'f')
    b.type_tfms[-1](files[0]); assert b.type_tfms[-1].cache.info()['clips']==1; b.type_tfms[-1].cache.close()
    with pytest.raises(ValueError, match='cache_folder'): AudioBlock(cache_folder='x', cache=tmp_path/'f')
    with pytest.raises(TypeError, match='cache'): AudioBlock(cache=3)

def test_an_exported_learner_predicts_with_the_cache_and_where_there_is_none(files, cache, tmp_path):
    df,dls = blocks(files, cache, batch_tfms=[AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=256, hop_length=128, n_mels=16))])
    learn = spec_learner(dls, arch='small'); learn.export(tmp_path/'e.pkl')
    want = [learn.predict(f)[2] for f in files[:3]]
    hits = cache.info()['hits']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore'); again = load_learner(tmp_path/'e.pkl')
    for f,p in zip(files, want): assert torch.allclose(again.predict(f)[2], p, atol=1e-6)  # the order of channels in memory decides the rounding
    assert cache.info()['hits']>=hits+3
    plainly = spec_learner(blocks(files, None, batch_tfms=list(dls.after_batch.fs))[1], arch='small'); plainly.model = learn.model
    for f,p in zip(files, want): assert torch.allclose(plainly.predict(f)[2], p, atol=1e-6)
    dl = pickle.loads(pickle.dumps(dls))
    for a,b in zip(dl.valid, dls.valid): assert torch.equal(a[0].plain(), b[0].plain())
    shutil.rmtree(cache.path); cache.close()
    gone = pickle.loads(pickle.dumps(cache)); same(gone.open(files[0]), plain(files[0])); assert gone.info()['clips']==1; gone.close()  # a new one
    far = pickle.loads(pickle.dumps(cache)); far.path = '/no/such/folder/c'
    with pytest.warns(UserWarning, match='cannot be used here'): same(far.open(files[0]), plain(files[0]))
    with warnings.catch_warnings(): warnings.simplefilter('error'); same(far.open(files[0]), plain(files[0])); repr(far)
    C._stores.pop(far.path)

# bounds

def du(c): return os.path.getsize(Path(c.path)/'data.mdb')

def test_the_file_never_outgrows_its_bound_and_all_clips_are_served(tmp_path):
    fs = [write(tmp_path/f'{i}.wav', i, 16000*4, 16000, 1) for i in range(30)]; old(*fs)  # 7.7 MB of samples
    c = AudioCache(tmp_path/'c', max_bytes=4e6)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        for _ in range(3):
            for f in fs: same(c.open(f), plain(f))
            c.flush(); assert du(c)<=4e6
    assert len([x for x in w if 'is full' in str(x.message)])==1
    assert 8<=c.info()['clips']<15 and c.info()['hits']>=2*8
    n = c.info()['clips']
    for f in fs[:5]: f.unlink()  # their room goes to others
    assert c.tidy()==5 and c.info()['clips']==n-5
    for f in fs[5:]: c.open(f)
    assert c.info()['clips']>=n-1 and du(c)<=4e6 and c.check()==[]
    c.close()

def test_what_changed_makes_room_by_itself(tmp_path):
    fs = [write(tmp_path/f'{i}.wav', i, 16000*4, 16000, 1) for i in range(16)]; old(*fs)  # 13 fit
    c = AudioCache(tmp_path/'c', max_bytes=4e6).fill(fs[:12], progress=False)
    assert c.info()['clips']==12
    for f in fs[:4]: f.unlink()
    c.close()
    with warnings.catch_warnings(): warnings.simplefilter('error'); c.fill(fs[12:], progress=False)
    for f in fs[4:]: same(c.open(f), plain(f))
    assert c.info()['misses']==0 and c.info()['clips']==12
    c.close()

def test_a_clip_too_large_leaves_room_to_the_others(tmp_path, files):
    big = write(tmp_path/'big.wav', 0, 2*10**6, 16000, 1); old(big)
    c = AudioCache(tmp_path/'c', max_bytes=4e6)
    with pytest.warns(UserWarning, match='is full'): c.fill([big, *files], progress=False)
    assert c.info()['clips']==9
    c.close()

def test_limits_are_checked(tmp_path):
    with pytest.raises(ValueError, match='max_bytes'): AudioCache(tmp_path/'c', max_bytes=1000)
    with pytest.raises(FileNotFoundError, match='no such folder'): AudioCache(tmp_path/'x'/'c')

def test_a_higher_limit_takes_effect_and_a_lower_one_writes_no_more(tmp_path):
    fs = [write(tmp_path/f'{i}.wav', i, 16000*4, 16000, 1) for i in range(30)]; old(*fs)
    small,large = AudioCache(tmp_path/'c', max_bytes=4e6),AudioCache(tmp_path/'c', max_bytes=2e7)
    with pytest.warns(UserWarning, match='is full'): small.fill(fs, progress=False)
    large.fill(fs, progress=False); assert large.info()['clips']==30
    large.close(); size = du(small)
    more = write(tmp_path/'m.wav', 99, 16000*4, 16000, 1); old(more)
    with pytest.warns(UserWarning, match='is full'): small.fill([more], progress=False)
    for f in fs: same(small.open(f), plain(f))
    assert du(small)==size and small.info()['misses']==0
    small.close()

@pytest.mark.skipif(not hasattr(signal, 'SIGXFSZ'), reason='needs a limit on the size of files')
def test_a_disk_that_is_full_is_said_once_and_clips_are_read(files, tmp_path):
    code = """
    import resource,signal,sys,warnings,torch
    from specnorm_fastai.cache import *; from specnorm_fastai.cache import _reader
    from pathlib import Path
    warnings.simplefilter('always')
    c = AudioCache(sys.argv[1], max_bytes=1e8); c.info()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (60000,)*2)
    for _ in range(3):
        for f in sys.argv[2:]: assert torch.equal(c.open(f).plain(), _reader(16000, True)(f).plain())
        c.flush()
    print(c.info()['clips'], c.check())
    """
    r = run(code, tmp_path/'c', *files)
    assert r.returncode==0 and r.stderr.count('is full (')==1, r.stderr[-2000:]
    n,checked = r.stdout.split()
    assert 0<int(n)<9 and checked=='[]'
    c = AudioCache(tmp_path/'c', max_bytes=1e8).fill(files, progress=False)
    assert c.info()['clips']==9; c.close()

# several processes

def fill(path, later, how, files, ready):
    C._later = (later, 1.)
    c = AudioCache(path, max_bytes=2e8)
    ready.set()
    while how=='loop':
        for f in files: c.open(f)
        c.clear()
    c.fill(files, progress=False)

def start(path, later, how, files):
    ctx = multiprocessing.get_context('fork'); ready = ctx.Event()
    p = ctx.Process(target=fill, args=(path, later, how, files, ready)); p.start()
    assert ready.wait(30)
    return p

def forked(f):
    "Exit code of `f` in a child; below 0: the signal that ended it"
    p = multiprocessing.get_context('fork').Process(target=f); p.start(); p.join(60)
    return p.exitcode

def test_two_processes_fill_one_whole_cache(files, cache):
    ps = [start(cache.path, 1, '', fs) for fs in (files,files[::-1])]
    for p in ps: p.join(60); assert p.exitcode==0
    assert cache.info()['clips']==9 and cache.check()==[]
    for f in files: same(cache.open(f), plain(f))
    assert cache.info()['misses']==0

def test_a_folder_that_another_process_makes_meanwhile_is_taken(files, tmp_path, monkeypatch):
    made = os.mkdir
    def second(path, *args, **kw): made(path, *args, **kw); made(path, *args, **kw)
    c = AudioCache(tmp_path/'c', max_bytes=2e8)
    monkeypatch.setattr(os, 'mkdir', second)
    with warnings.catch_warnings(): warnings.simplefilter('error'); c.open(files[0])
    assert not c.info()['readonly'] and c.info()['clips']==1; c.close()

def test_a_reader_beside_a_writer_sees_only_whole_clips_and_kills_do_no_harm(files, cache):
    "A process fills and clears for ever, and is killed at odd moments; each time all that is there is right, and filling goes on"
    want = {f:plain(f) for f in files}
    rng,seen = np.random.default_rng(0),0
    for k in range(12):
        p = start(cache.path, int(rng.integers(1, 60000)), 'loop', files)
        until = time.time()+rng.uniform(.02, .4)
        while time.time()<until:
            for f in files: same(cache.open(f), want[f])
            seen += 1
        p.kill(); p.join()
        assert cache.check()==[]
        for f in files: same(cache.open(f), want[f])
    assert seen>6 and cache.info()['hits']>9
    assert cache.fill(files, progress=False).info()['clips']==9

def test_killed_while_new_it_is_filled_by_the_next(files, tmp_path):
    for k in range(16):
        c = tmp_path/f'c{k}'
        p = start(c, 1, '', files); time.sleep(.001*k); p.kill(); p.join()
        c = AudioCache(c, max_bytes=2e8).fill(files, progress=False)
        assert c.info()['clips']==9 and c.check()==[]; c.close()

def test_no_environment_crosses_a_fork(files, cache):
    cache.open(files[0])
    pid = os.fork()
    if pid==0:
        try:
            ok = not C._stores and torch.equal(cache.open(files[0]).plain(), plain(files[0]).plain()) and cache.info()['hits']==1
            cache.open(files[1]); cache.close()
        except BaseException: ok = False
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1]==0
    cache.open(files[1]); assert cache.info()['hits']==1  # what the child wrote

def test_a_fork_beside_reading_threads_neither_hangs_nor_breaks(files, cache):
    cache.fill(files, progress=False)
    want,stop,bad = {f:plain(f) for f in files},threading.Event(),[]
    def read():
        while not stop.is_set():
            try: bad.extend(f for f in files if not torch.equal(cache.open(f).plain(), want[f].plain()))
            except BaseException as e: bad.append(e); raise
    ts = [threading.Thread(target=read) for _ in range(3)]
    for t in ts: t.start()
    for _ in range(5):
        if (pid:=os.fork())==0:
            signal.alarm(20); os._exit(0 if cache.open(files[0]).numel() else 1)
        assert os.waitpid(pid, 0)[1]==0
    stop.set()
    for t in ts: t.join(20)
    assert not bad and not any(t.is_alive() for t in ts)

def test_what_was_read_is_written_at_the_end_of_a_process(files, tmp_path):
    code = "import sys; from specnorm_fastai.cache import *; c = AudioCache(sys.argv[1]); [c.open(f) for f in sys.argv[2:]]"
    assert run(code, tmp_path/'c', *files).returncode==0
    c = AudioCache(tmp_path/'c'); assert c.info()['clips']==9; c.close()

def test_two_names_of_one_cache_are_one(files, cache, tmp_path):
    cache.open(files[0]); (tmp_path/'link').symlink_to(cache.path)
    other = AudioCache(tmp_path/'link', max_bytes=2e8); other.open(files[0])
    assert other.info()['hits']==1; other.close(); cache.open(files[0])

# damage

def damaged(cache, f):
    cache.close(); data = Path(cache.path)/'data.mdb'
    b = bytearray(data.read_bytes()); b = f(b) or b
    data.write_bytes(b); (Path(cache.path)/'lock.mdb').unlink(missing_ok=True)
    return b

@pytest.mark.parametrize('at', [0, 1, 100, 4096, 8191, 8192, 20000, .5, .9, .9999])
def test_a_file_cut_short_is_a_message_and_no_crash(files, cache, at):
    cache.fill(files, progress=False)
    b = damaged(cache, lambda b: b[:int(len(b)*at) if isinstance(at, float) else at])
    def child():
        if at==0: same(cache.open(files[0]), plain(files[0]))  # nothing at all is a new one
        else:
            with pytest.raises(ValueError, match='is damaged.*Remove it'): cache.open(files[0])
    assert forked(child)==0
    if at: assert (Path(cache.path)/'data.mdb').read_bytes()==b  # left to its owner

def test_altered_samples_are_found_and_made_again(files, cache):
    cache.fill(files, progress=False); want = plain(files[8])
    raw = want.plain().numpy().tobytes()
    def alter(b): i = b.find(raw[400:500]); assert i>0; b[i+7] ^= 64
    damaged(cache, alter)
    assert len(cache.check())==1
    for _ in range(2): same(cache.open(files[8]), want)
    assert (cache.info()['misses'],cache.info()['hits'])==(1,1)
    cache.flush(); assert cache.check()==[]

def test_random_bytes_are_a_message(files, cache, tmp_path):
    cache.fill(files[:1], progress=False)
    damaged(cache, lambda b: os.urandom(len(b)))
    with pytest.raises(ValueError, match='is damaged.*Remove it'): cache.open(files[0])
    assert 'is damaged' in repr(cache)

def test_what_is_not_ours_is_left_alone(tmp_path, files):
    (tmp_path/'file').write_text('mine'); (tmp_path/'folder').mkdir(); (tmp_path/'folder'/'mine.txt').write_text('mine')
    for n in ('file','folder'):
        with pytest.raises(ValueError, match='path: expected'): AudioCache(tmp_path/n)
    with lmdb.open(str(tmp_path/'other')) as e:
        with e.begin(write=True) as t: t.put(b'mine', b'mine')
    c = AudioCache(tmp_path/'other')
    with pytest.raises(ValueError, match='something else'): c.open(files[0])
    with lmdb.open(str(tmp_path/'other')) as e:
        with e.begin() as t: assert t.get(b'mine')==b'mine' and t.stat()['entries']==1

def test_an_older_format_is_made_anew_and_a_newer_one_is_left_alone(files, cache):
    cache.fill(files, progress=False)
    for v,ok in ((C._format-1,True),(C._format+1,False)):
        cache.close()
        with lmdb.open(cache.path, map_size=10**8) as e:
            with e.begin(write=True) as t: t.put(C._marker, C._title+str(v).encode())
        if ok: assert cache.info()['clips']==0; same(cache.open(files[0]), plain(files[0])); assert cache.info()['clips']==1
        else:
            with pytest.raises(ValueError, match='newer version'): cache.open(files[0])

@pytest.fixture
def open_place():
    "A folder that another user can read, unlike those of pytest"
    with tempfile.TemporaryDirectory() as d: os.chmod(d, 0o755); yield Path(d)

@pytest.mark.skipif(not hasattr(os, 'setuid'), reason='needs users')
@pytest.mark.parametrize('lock', [True,False])
def test_a_cache_that_cannot_be_written_still_serves(files, open_place, lock):
    files = [Path(shutil.copy(f, open_place)) for f in files]; old(*files)
    cache = AudioCache(open_place/'c', max_bytes=2e8).fill(files[:5], progress=False); cache.close()
    if not lock: (Path(cache.path)/'lock.mdb').unlink()
    for p in Path(cache.path).iterdir(): p.chmod(0o444)
    Path(cache.path).chmod(0o555)
    code = """
    import os,sys
    import torch,lmdb,soundfile,soxr
    from specnorm_fastai.all import *; from specnorm_fastai.cache import _reader
    if os.getuid()==0: os.setgid(65534); os.setuid(65534)
    c = AudioCache(sys.argv[1], max_bytes=2e8)
    for f in sys.argv[2:]: assert torch.equal(c.open(f).plain(), _reader(16000, True)(f).plain())
    print(c.info()['hits'], c.info()['misses'], c.info()['readonly'])
    try: c.clear()
    except ValueError as e: print(e)
    """
    r = run(code, cache.path, *files); Path(cache.path).chmod(0o755)
    assert r.stdout.startswith('5 4 True\ncache:') and 'cannot be written' in r.stdout, r.stderr[-2000:]+r.stdout

def test_a_place_that_cannot_be_made_is_said_once(files, tmp_path, monkeypatch):
    c = AudioCache(tmp_path/'c')
    def no(*a, **k): raise PermissionError('not here')
    monkeypatch.setattr(os, 'mkdir', no)
    with pytest.warns(UserWarning, match='not here') as w:
        for _ in range(3): same(c.open(files[0]), plain(files[0]))
    assert len(w)==1
    with pytest.raises(ValueError, match='cannot be written'): c.clear()
    C._stores.pop(c.path)

# what else it does

def test_remove_tidy_and_clear(files, cache):
    cache.fill(files, progress=False).fill(files[:2], sample_rate=8000, progress=False)
    assert cache.info()['clips']==11
    assert cache.remove(files[:1]).info()['clips']==9
    write(files[1], 5); files[2].unlink(); old(files[1])
    assert cache.tidy()==3 and cache.info()['clips']==6 and cache.tidy()==0
    assert cache.clear().info()['clips']==0
    size = du(cache)
    fs = [f for f in files if f.exists()]
    assert cache.fill(fs, progress=False).info()['clips']==8 and cache.check()==[] and du(cache)<=size*1.5
    for f in fs: same(cache.open(f), plain(f))

def test_many_rounds_of_deletes_leave_a_file_that_opens(tmp_path):
    "Merged pages at the end of the file may be free without ever having been written"
    fs = [write(tmp_path/f'{i}.wav', i, 100, 16000, 1) for i in range(300)]; old(*fs)
    c,rng = AudioCache(tmp_path/'c', max_bytes=1e8),np.random.default_rng(0)
    for _ in range(6):
        c.fill(fs, progress=False); c.remove([fs[i] for i in rng.permutation(300)[:280]]); c.close()
        assert c.check()==[]
    c.close()

def test_repr_tells_what_is_there(files, cache):
    cache.fill(files, progress=False); cache.open(files[0])
    assert repr(cache).startswith('AudioCache: 9 clips, ') and '1 hits' in repr(cache)

def test_a_hit_looks_at_the_clip_and_the_cache_and_opens_no_file(files, cache, monkeypatch):
    cache.fill(files, progress=False); cache.open(files[0]); n = []
    real = os.stat
    monkeypatch.setattr(os, 'stat', lambda *a, **k: (n.append(a), real(*a, **k))[1])
    monkeypatch.setattr(C, '_reader', None)
    cache.open(files[0]); assert len(n)==2

def test_statistics_of_files_and_experiments_read_through_a_cache(tmp_path, monkeypatch):
    from specnorm_fastai.data import DownmixMono,Resample,synthetic_audio
    from specnorm_fastai.experiment import AudioStore
    from specnorm_fastai.features import AudioConfig,AudioToSpec
    from specnorm_fastai.stats import collect_stats
    path = synthetic_audio(tmp_path/'clips', n=12, seconds=.5)
    files = sorted((path/'audio').iterdir())
    time.sleep(.15)
    spec = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=512, n_mels=20))
    for head in ([Resample(8000),DownmixMono()], [Resample(8000)], [DownmixMono()], [Resample(8000,'polyphase')], []):
        want = collect_stats(files, tfms=[*head,spec], progress=False)
        for _ in range(2):
            got = collect_stats(files, tfms=[*head,spec], cache=tmp_path/'cache', progress=False)
            assert torch.equal(got.mean, want.mean) and torch.equal(got.std, want.std)
    cache = AudioCache(tmp_path/'cache')
    assert cache.info()['clips']==12*4  # 8000 Hz mixed down and as it is, the file's rate mixed down and as it is
    with pytest.raises(ValueError, match='cache: expected together with a list of files'): collect_stats(_dls_of(path), cache=cache)
    plain = AudioStore(8000)
    store = AudioStore(8000, cache=cache).fill(map(str, files))
    monkeypatch.setattr('specnorm_fastai.core._read_audio', lambda *a, **k: pytest.fail('decoded'))
    again = AudioStore(8000, cache=tmp_path/'cache').fill(map(str, files))
    monkeypatch.undo()
    for f in files:
        assert torch.equal(store(Path(f)), plain(Path(f))) and torch.equal(again(Path(f)), plain(Path(f)))

def _dls_of(path):
    import pandas as pd
    from fastai.data.block import CategoryBlock,DataBlock
    from fastai.data.transforms import ColReader,RandomSplitter
    from specnorm_fastai.data import AudioBlock
    df = pd.read_csv(path/'meta'/'synthetic.csv')
    return DataBlock(blocks=(AudioBlock(crop_signal_to=300),CategoryBlock), get_x=ColReader('filename', pref=path/'audio'), get_y=ColReader('category'), splitter=RandomSplitter(seed=0)).dataloaders(df, bs=4, num_workers=0)

def test_a_folder_removed_or_replaced_while_it_is_open_is_made_anew(files, tmp_path):
    c = AudioCache(tmp_path/'c')
    c.fill(files[:3], progress=False)
    shutil.rmtree(c.path)
    for f in files[:3]: same(c.open(f), plain(f))
    assert c.info()['clips']==3 and os.path.exists(c.path)
    c.flush(); other = AudioCache(tmp_path/'d'); other.fill(files[:5], progress=False); other.close()
    shutil.rmtree(c.path); shutil.move(other.path, c.path)
    assert c.info()['clips']==5
    c.close()

def test_a_block_fills_its_cache_and_knows_it_from_a_folder_of_files(files, tmp_path):
    b = AudioBlock(cache=tmp_path/'c', sample_rate=8000)
    b.fill(files[0].parent, progress=False)
    c = AudioCache(tmp_path/'c')
    assert c.info()['clips']==len(files)
    hits = c.info()['hits']
    for f in files: same(b.type_tfms[-1](f), plain(f, sample_rate=8000))
    assert c.info()['hits']==hits+len(files)
    assert c.remove(str(files[0])).info()['clips']==len(files)-1
    assert c.remove(files[0].parent).info()['clips']==0
    with pytest.raises(ValueError, match='cache_folder: .* is an AudioCache'): AudioBlock(tmp_path/'c')
    with pytest.raises(ValueError, match='this block has none to fill'): AudioBlock().fill(files)
    with pytest.raises(TypeError, match="max_bytes: expected a number of bytes.*'8GB'"): AudioCache(tmp_path/'e', '8GB')
    c.close()

def test_samples_that_changed_places_are_noticed():
    x = AudioTensor(torch.arange(4000.)[None], sr=8000)
    v = C._pack(b'k'*24, (1,2,3,4), x, '/a', C._how(8000, True))
    assert C._unpack(v, b'k'*24, (1,2,3,4)) is not None
    v[-8000:-4000],v[-4000:] = v[-4000:],v[-8000:-4000]
    assert C._unpack(v, b'k'*24, (1,2,3,4)) is None

def test_an_experiment_finds_its_audio_in_the_cache_and_the_same_result(tmp_path):
    from specnorm_fastai.compare import compare
    from specnorm_fastai.data import synthetic_audio
    path = synthetic_audio(tmp_path/'clips', n=40, seconds=.3)
    kw = dict(data=path, ways=['none'], runs=1, fold=1, epochs=1, arch='small', bs=8, log=lambda s: None)
    want = compare(out=tmp_path/'plain', **kw)
    got = compare(out=tmp_path/'cached', cache=tmp_path/'cache', **kw)
    assert got.equals(want) and AudioCache(tmp_path/'cache').info()['clips']>=1
