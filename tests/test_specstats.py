"Finished statistics: whole on file or refused, for their own pipeline only, as sure as they say, readable by other tools"
import copy,json,os,pickle,random,re,struct
from contextlib import contextmanager
from pathlib import Path
import numpy as np, pytest, torch
from fastai.vision.all import CategoryBlock,ColReader,DataBlock,pd
from hypothesis import assume,given,settings,strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as sps
from specnorm_fastai import specstats
from specnorm_fastai.all import *
from specnorm_fastai.specstats import _digest,_to_arrays

S = dict(sr=16000, n_fft=8, win_length=8, hop_length=4, mel=False, to_db=True, stype='power', waveform_norm=None)
SUFFIXES = ['.safetensors','.json']

@pytest.fixture(autouse=True, scope='module')
def _asked_once():
    "Asking for the versions of packages takes longer than all else"
    v = specstats._versions()
    with pytest.MonkeyPatch.context() as mp: mp.setattr(specstats, '_versions', lambda: dict(v)); yield

def _x(b=12, c=1, f=4, t=9, seed=0):
    "dB values of clips that differ in level, rows too: (clip, channel, row, frame), float64"
    rng = np.random.default_rng(seed)
    return rng.normal(size=(b,c,f,t))*4+rng.normal(size=(b,1,1,1))*6+rng.normal(size=(1,c,f,1))*10-30

def _stats(x=None, groups=8, quantiles=True, settings=S, freqs=True, lengths=None, by=None, **kw):
    x = _x() if x is None else x
    rec = StatsRecorder((0,3), quantiles=quantiles, groups=groups)
    rec.update(AudioSpectrogram.create(torch.as_tensor(x), settings=settings, freqs=tuple(1000.*i+.1 for i in range(x.shape[2])) if freqs else None), lengths=lengths, groups=by)
    return SpecStats.from_recorder(rec, **kw)

KINDS = dict(
    finest=lambda: _stats(_x(c=2)), no_histograms=lambda: _stats(quantiles=False), no_groups=lambda: _stats(groups=0), no_freqs=lambda: _stats(freqs=False), bare=lambda: _stats(groups=0, quantiles=False, freqs=False),
    more_groups=lambda: _stats(groups=20), unknown=lambda: _stats(settings=None), global_=lambda: _stats().reduce('global'), channels=lambda: _stats(_x(c=2)).reduce('global'), frequency=lambda: _stats(_x(c=2)).reduce('frequency'),
    all_axes=lambda: _stats(_x(c=2)).reduce((0,1,2,3)), weighted=lambda: _stats().merge(_stats(_x(seed=1)), weight=.3), faded=lambda: _stats().updated(_stats(_x(5, seed=1)), half_life=7),
    mixed_groups=lambda: _stats().merge(_stats(_x(seed=1), groups=3)), noted=lambda: _stats(note='é "quoted"\n', numbers=(1.5,2), bad=None), uncounted=lambda: SpecStats.from_arrays([1.,.1,-3e-300], [1/3,2.,5e-324], unchecked=True),
    one_number=lambda: SpecStats.from_ast(dict(mean=-4.2677393, std=4.5689974), unchecked=True), given_count=lambda: SpecStats(.1, .2, 3.5), cepstra=lambda: _stats(settings=dict(sr=16000, n_mfcc=4, n_fft=8, norm='ortho'), freqs=False))

@pytest.fixture(params=list(KINDS))
def kind(request): return KINDS[request.param]()

def _numbers(s):
    "All that statistics say, as bytes"
    res = [s.mean,s.std]
    if s.counted: res.append(s.count)
    if s._extra is not None: res += [s.min,s.max,s.quantile([0,.01,.5,.77,1])]
    if len(s._table[0])>1: res += [s.standard_error(),*s.interval(.9)]
    return [v.numpy().tobytes() for v in res]

def _refused(f, path, match=None, error=(ValueError,OSError)):
    "`f` raises an error that names the file"
    with pytest.raises(error, match=match) as e: f()
    assert Path(path).name in str(e.value), str(e.value)

# --- on file

@pytest.mark.parametrize('suffix', SUFFIXES)
def test_a_saved_file_gives_back_every_bit(kind, suffix, tmp_path):
    file = kind.save(tmp_path/f'a{suffix}')
    assert file==tmp_path/f'a{suffix}' and os.listdir(tmp_path)==[file.name]
    back = SpecStats.load(str(file), unchecked=True)
    assert back==kind and kind==back and _numbers(back)==_numbers(kind) and back.counted==kind.counted
    assert back.provenance==json.loads(json.dumps(kind.provenance, default=list)) and repr(back)==repr(kind)
    assert SpecStats.load(back.save(tmp_path/f'b{suffix}'), unchecked=True)==kind
    if kind.fingerprint=='unknown': _refused(lambda: SpecStats.load(file), file, 'does not say which pipeline.*unchecked=True')
    else: assert SpecStats.load(file)==kind

floats = st.floats(-1e100, 1e100)
@given(data=st.data(), g=st.integers(1,3), c=st.integers(1,2), f=st.integers(1,3))
@settings(max_examples=20)
def test_any_finite_numbers_survive_both_formats(data, g, c, f, tmp_path_factory):
    draw = lambda els, *shape: data.draw(hnp.arrays(np.float64, shape, elements=els))
    n,m,m2 = draw(st.floats(1e-3,1e12), g,c,f),draw(floats, g,c,f),draw(st.floats(0,1e100), g,c,f)
    s = SpecStats(m, count=n, m2=m2, freqs=draw(st.floats(0,1e5), f), fingerprint=data.draw(st.sampled_from(['unknown',{},{'units':'dB','a':[.1,{'b':None}]}])),
                  provenance=data.draw(st.dictionaries(st.text(max_size=3), st.none()|st.booleans()|st.integers()|st.floats(allow_nan=False, allow_infinity=False).map(lambda v: v+.5 if abs(v)<1e9 else .5)|st.text(max_size=3), max_size=3)))
    tmp = tmp_path_factory.getbasetemp()
    for suffix in SUFFIXES:
        back = SpecStats.load(s.save(tmp/f'any{suffix}'), unchecked=True)
        assert back==s and all(a.numpy().tobytes()==b.numpy().tobytes() for a,b in zip(back._table, s._table)) and back.provenance.keys()==s.provenance.keys()

def test_files_hold_json_and_raw_numbers_and_not_a_byte_more(tmp_path):
    s = _stats()
    b = s.save(tmp_path/'a.safetensors').read_bytes()
    n = struct.unpack('<Q', b[:8])[0]; head = json.loads(b[8:8+n]); meta = head.pop('__metadata__')
    assert list(meta)==['header'] and json.loads(meta['header'])['format']=='specnorm_fastai.SpecStats'
    at = 0
    for k,v in sorted(head.items(), key=lambda p: p[1]['data_offsets']):
        start,stop = v['data_offsets']; raw = np.frombuffer(b[8+n+start:8+n+stop], {'F64':'<f8','I64':'<i8'}[v['dtype']]).reshape(v['shape'])
        assert start==at and np.array_equal(raw, _to_arrays(s)[0][k]); at = stop
    assert 8+n+at==len(b)
    d = json.loads(s.save(tmp_path/'a.json').read_text(encoding='ascii'))
    assert np.allclose(d['summary']['mean'], s.mean[0,...,0], rtol=0, atol=0) and np.allclose(d['summary']['std'], s.std[0,...,0], rtol=0, atol=0) and set(d['arrays'])==set(_to_arrays(s)[0])

class Boom:
    def __init__(self, path): self.path = path
    def __reduce__(self): return (Path.touch, (self.path,))

LOADERS = {'.safetensors':SpecStats.load, '.json':SpecStats.load, '.npz':lambda p: SpecStats.from_npz(p, unchecked=True), '.ark':lambda p: SpecStats.from_kaldi(p, unchecked=True),
           'preprocessor_config.json':lambda p: SpecStats.from_ast(p, unchecked=True)}

@pytest.mark.parametrize('suffix', list(LOADERS))
@pytest.mark.parametrize('proto', [0,2,5])
def test_a_pickle_by_another_name_is_refused_and_does_not_run(suffix, proto, tmp_path):
    ran,file = tmp_path/'ran',tmp_path/f'a{suffix}'
    file.write_bytes(pickle.dumps(Boom(ran), proto)); _refused(lambda: LOADERS[suffix](file), file)
    torch.save({'mean':Boom(ran)}, file); _refused(lambda: LOADERS[suffix](file), file)
    objects = np.array([Boom(ran)], dtype=object)
    with open(file, 'wb') as f: np.savez(f, mean=objects, std=objects, count=objects)
    _refused(lambda: LOADERS[suffix](file), file)
    with open(file, 'wb') as f: np.save(f, objects)
    _refused(lambda: LOADERS[suffix](file), file)
    assert not ran.exists()
    pickle.loads(pickle.dumps(Boom(ran))); assert ran.exists()  # it would have

def test_reading_never_unpickles(tmp_path, monkeypatch):
    s,files = _stats(),[]
    for k in SUFFIXES: files.append(s.save(tmp_path/f'a{k}'))
    s.to_npz(tmp_path/'a.npz'); s.to_kaldi(tmp_path/'a.ark')
    def no(*a, **kw): raise AssertionError('unpickled')
    for n in ('load','loads','Unpickler','_Unpickler'): monkeypatch.setattr(pickle, n, no)
    monkeypatch.setattr(torch, 'load', no)
    for k in SUFFIXES+['.npz','.ark']: assert torch.allclose(LOADERS[k](tmp_path/f'a{k}').mean, s.mean)

@pytest.fixture(scope='module', params=SUFFIXES)
def small(request, tmp_path_factory):
    "A small file, its bytes and what it holds"
    s = _stats(_x(3,1,2,3), groups=2); s.provenance = {k:s.provenance[k] for k in ('clips','frames')}
    file = s.save(tmp_path_factory.mktemp('small')/f'a{request.param}')
    return file.with_name(f'cut{request.param}'),file.read_bytes(),s

def test_a_file_cut_short_is_refused(small):
    file,b,_ = small
    for n in {*range(0, len(b), 5), *range(len(b)-30, len(b))}:
        file.write_bytes(b[:n]); _refused(lambda: SpecStats.load(file), file)

def _refused_or_the_same(file, b, s):
    file.write_bytes(b)
    try: back = SpecStats.load(file)
    except (ValueError,OSError) as e: assert file.name in str(e), repr(e); return
    assert back==s and back.provenance==s.provenance and _numbers(back)==_numbers(s)  # such as 1e-05 as 1E-05

@given(data=st.data(), bit=st.integers(0,7))
@settings(max_examples=300)
def test_a_flipped_bit_is_refused_or_changes_nothing(small, data, bit):
    file,b,s = small
    at = data.draw(st.integers(0,len(b)-1))
    _refused_or_the_same(file, b[:at]+bytes([b[at]^1<<bit])+b[at+1:], s)

@given(data=st.data(), junk=st.binary(max_size=20))
@settings(max_examples=50)
def test_bytes_put_in_or_taken_out_are_refused_or_change_nothing(small, data, junk):
    file,b,s = small
    i,j = sorted(data.draw(st.tuples(*[st.integers(0,len(b))]*2)))
    for edited in (b[:i]+junk+b[i:], b[:i]+b[j:], b+junk, b[:i]+b[j:]+b[i:j]): _refused_or_the_same(file, edited, s)

@pytest.mark.parametrize('a,b', [('"n_fft": 8','"n_fft": 16'), ('"counted": true','"counted": false'), ('"version": 1','"version": 2'), ('"axes": [0, 3]','"axes": [0, 1, 3]'), ('"clips": 12','"clips": 13'),
    ('"freqs": [0.1','"freqs": [0.2'), ('"units": "dB"','"units": "power"'), ('"format": "specnorm','"format": "x'), ('"hist_start": ','"hist_start": 1'), ('"summary": {','"summary": {"a": 1, '), ('"dtype": "int64"','"dtype": "float64"'),
    ('"data": [','"data": [NaN, '), ('"data": [','"data": [1, '), ('"shape": [8, 1, 4]','"shape": [4, 2, 4]'), ('"shape": [8, 1, 4]','"shape": [8, 4]'), ('{','[{'), ('{','{"other": 1, '), ('"arrays"','"array"'),
    ('"sha256": "','"sha256": "0'), ('"sha256"','"sha"')])
def test_edited_json_is_refused(a, b, tmp_path):
    file = _stats().save(tmp_path/'a.json'); raw = file.read_text()
    assert a in raw
    file.write_text(raw.replace(a, b)); _refused(lambda: SpecStats.load(file), file, error=ValueError)

def test_what_is_no_statistics_file_is_refused_by_name(tmp_path):
    from safetensors.numpy import save_file
    for n in ('a.json','a.safetensors','b.npz','c.ark'):
        load,file = LOADERS[Path(n).suffix],tmp_path/n
        _refused(lambda: load(file), file, error=FileNotFoundError)
        file.write_bytes(b''); _refused(lambda: load(file), file)
        file.write_bytes(b'\0'*100); _refused(lambda: load(file), file)
        file.write_bytes(os.urandom(1000)); _refused(lambda: load(file), file)
        file.unlink(); file.mkdir(); _refused(lambda: load(file), file, 'directory'); file.rmdir()
    for text in ('null','[]','3','"a"','{}','{"arrays":{}}','{"arrays":[]}','{"format":"specnorm_fastai.SpecStats","version":1,"arrays":{}}','['*100_000,'{"a":'*100_000,'{"arrays":{"mean":1}}','{"arrays":{"mean":{"dtype":"O","data":[1]}}}',
                 '{"arrays":{"mean":{"dtype":"float64","data":[1],"shape":[1000000000000000]}}}','{"arrays":{"mean":{"dtype":"int64","data":[1e400],"shape":[1]}}}',
                 '{"arrays":{"mean":{"dtype":"int64","data":[99999999999999999999999],"shape":[1]}}}'):
        (tmp_path/'a.json').write_text(text); _refused(lambda: SpecStats.load(tmp_path/'a.json'), 'a.json', error=ValueError)
    for meta in (None, {'a':'b'}, {'header':''}, {'header':'3'}, {'header':'['*100_000}, {'header':'{"format":"other"}'}):
        save_file({'mean':np.zeros(3)}, tmp_path/'a.safetensors', metadata=meta); _refused(lambda: SpecStats.load(tmp_path/'a.safetensors'), 'a.safetensors', error=ValueError)
    for n in ('a','a.pkl','a.pth','a.JSON','a.npz'):
        with pytest.raises(ValueError, match=f'ends in .safetensors or .json, got .*{n}'): SpecStats.load(tmp_path/n)
        with pytest.raises(ValueError, match=f'ends in .safetensors or .json, got .*{n}'): _stats().save(tmp_path/n)

def _craft(file, edit):
    "A file with a correct digest and bad content"
    s = _stats()
    arrays,start = _to_arrays(s); arrays = {k:v.copy() for k,v in arrays.items()}
    header = json.loads(s.save(file.with_name('good.json')).read_text()); header.pop('arrays')
    edit(arrays, header)
    header['sha256'] = _digest(arrays, header)
    if file.suffix=='.json': file.write_text(json.dumps({**header, 'arrays':{k:dict(shape=list(v.shape), dtype=str(v.dtype), data=v.flatten().tolist()) for k,v in arrays.items()}}))
    else:
        from safetensors.numpy import save_file
        save_file({k:np.ascontiguousarray(v) for k,v in arrays.items()}, file, metadata={'header':json.dumps(header)})

def _put(k, at, v):
    def f(a, h): a[k][at] = v
    return f
def _arr(k, g):
    def f(a, h): a[k] = g(a[k])
    return f
def _head(**kw): return lambda a, h: h.update(kw)
def _drop(*ks):
    def f(a, h):
        for k in ks: (a if k in a else h).pop(k)
    return f

CRAFTED = {
    'variance below 0': _put('m2', (1,0,2), -1e-9), 'variance NaN': _put('m2', (1,0,2), np.nan), 'variance Inf': _put('m2', (1,0,2), np.inf), 'mean NaN': _put('mean', (0,0,0), np.nan), 'mean Inf': _put('mean', (0,0,0), -np.inf),
    'count 0': _put('count', np.s_[:], 0.), 'count 0 of a row': _put('count', np.s_[:,0,1], 0.), 'count below 0': _put('count', (2,0,0), -1.), 'count NaN': _put('count', (2,0,0), np.nan), 'count Inf': _put('count', (2,0,0), np.inf),
    'count of another shape': _arr('count', lambda v: v[:,:,:3]), 'variance of another shape': _arr('m2', lambda v: v[:4]), 'mean of another shape': _arr('mean', lambda v: v[...,:2]), 'empty': lambda a,
    h: [a.update({k:a[k][:0]}) for k in ('count','mean','m2','clips','peak','peak_m2')],
    'five dims': lambda a,h: [a.update({k:a[k][None,None]}) for k in ('count','mean','m2')], 'no rows': lambda a,h: [a.update({k:a[k][...,:0]}) for k in ('count','mean','m2')],
    'minimum NaN': _put('min', (0,1), np.nan), 'maximum NaN': _put('max', (0,1), np.nan), 'maximum Inf': _put('max', (0,1), np.inf), 'minimum above maximum': _put('min', (0,1), 1e9),
    'minimum of another shape': _arr('min', lambda v: v[:,:2]),
    'histogram below 0': _put('hist', (0,1,0), -1), 'histogram of another shape': _arr('hist', lambda v: v[:,:3]), 'flat histogram': _arr('hist', lambda v: v.reshape(-1)),
    'histogram of float32': _arr('hist', lambda v: v.astype(np.float32)),
    'histogram too long': _head(hist_start=1599), 'histogram from nowhere': _head(hist_start=-1), 'histogram from None': _head(hist_start=None), 'histogram from a float': _head(hist_start=.5), 'empty histogram': _put('hist', np.s_[:], 0),
    'loudest NaN': _put('peak', 1, np.nan), 'loudest deviate below 0': _put('peak_m2', 1, -1.), 'clips below 0': _put('clips', 1, -1.), 'clips NaN': _put('clips', 1, np.nan), 'clips of another shape': _arr('clips', lambda v: v[:3]),
    'float32': _arr('mean', lambda v: v.astype(np.float32)), 'whole numbers': _arr('count', lambda v: v.astype(np.int64)), 'another array': lambda a,h: a.update(more=np.zeros(3)), 'array named as code': lambda a,
    h: a.update({'__reduce__':np.zeros(3)}),
    **{f'no {k}': _drop(k) for k in ('mean','count','m2','min','max','hist','peak','peak_m2','clips','format','version','axes','fingerprint','freqs','provenance','counted','hist_start')},
    'axes without time': _head(axes=[0,1]), 'axes of another kind': _head(axes='time'), 'axes that do not fit the shape': _head(axes=[0,2,3]), 'axes None': _head(axes=None), 'axes 0': _head(axes=0),
    'fingerprint of another kind': _head(fingerprint='known'), 'fingerprint a list': _head(fingerprint=[1]), 'fingerprint None': _head(fingerprint=None), 'freqs too few': _head(freqs=[1.,2.]),
    'freqs no numbers': _head(freqs=['a']*4), 'freqs a number': _head(freqs=3.),
    'freqs NaN': _head(freqs=[float('nan')]*4), 'provenance a list': _head(provenance=[1]), 'provenance a text': _head(provenance='abc'), 'version of tomorrow': _head(version=2),
    'version as a text': _head(version='1'), 'version None': _head(version=None), 'format': _head(format='specnorm_fastai.Other')}

@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('how', list(CRAFTED))
def test_a_crafted_file_with_a_correct_digest_is_refused(how, suffix, tmp_path):
    _craft(tmp_path/f'fine{suffix}', lambda a,h: None); assert SpecStats.load(tmp_path/f'fine{suffix}')==_stats()
    file = tmp_path/f'crafted{suffix}'
    _craft(file, CRAFTED[how])
    _refused(lambda: SpecStats.load(file, unchecked=True), file, error=ValueError)

@contextmanager
def _disk_full(n=100):
    "No file may grow beyond `n` bytes"
    resource = pytest.importorskip('resource')
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n,was[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, was)

@pytest.mark.parametrize('suffix', ['.safetensors','.json','.ark','.txt','.npz'])
def test_a_file_is_written_whole_or_not_at_all(suffix, tmp_path, monkeypatch):
    a,b = _stats(),_stats(_x(seed=1))
    go = {'.ark':lambda s,p: s.to_kaldi(p), '.txt':lambda s,p: s.to_kaldi(p, binary=False), '.npz':lambda s,p: s.to_npz(p)}.get(suffix, lambda s,p: s.save(p))
    there,new,folder = (tmp_path/f'{n}{suffix}' for n in ('there','new','folder'))
    go(a, there); was = there.read_bytes(); folder.mkdir()
    def fails(*ps, error=Exception):
        for p in ps:
            with pytest.raises(error): go(b, p)
        assert there.read_bytes()==was and sorted(os.listdir(tmp_path))==sorted([there.name,folder.name])
    with _disk_full(): fails(there, new)
    def no(*args): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as mp: mp.setattr(os, 'replace', no); fails(there, new, error=OSError)
    def stop(*args): raise KeyboardInterrupt
    with monkeypatch.context() as mp: mp.setattr(os, 'replace', stop); fails(there, new, error=KeyboardInterrupt)
    fails(tmp_path/'nowhere'/f'a{suffix}', there/f'a{suffix}', folder, error=OSError)
    if os.geteuid():  # root writes anywhere
        tmp_path.chmod(0o500)
        try: fails(there, new, error=PermissionError)
        finally: tmp_path.chmod(0o700)
    go(b, there); go(b, new)
    assert there.read_bytes()!=was and new.read_bytes()==there.read_bytes() if suffix in ('.ark','.txt') else new.exists()

def test_what_json_cannot_hold_is_not_written(tmp_path):
    s = _stats(); s.provenance['x'] = float('nan')
    for suffix in SUFFIXES:
        with pytest.raises(ValueError): s.save(tmp_path/f'a{suffix}')
    assert not os.listdir(tmp_path)

# --- which pipeline

def _wave(sr=16000, c=1, n=2000, seed=0): return AudioTensor(torch.randn(c, n, generator=torch.Generator().manual_seed(seed))*.1, sr=sr)
def _lin(**kw): return AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(**{**dict(n_fft=128, win_length=100, hop_length=40), **kw}))
def _mel(**kw): return AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(**{**dict(n_fft=256, win_length=200, hop_length=60, n_mels=8), **kw}))
def _raw(mel=False, **kw): return SpectrogramTransformer(mel=mel, to_db=False)(**{**dict(n_fft=128, hop_length=40), **kw})
def _mfcc(**kw): mk = kw.pop('melkwargs', {}); return AudioToMFCC(**{**dict(n_mfcc=5), **kw}, melkwargs=None if mk is None else {**dict(n_mels=8, n_fft=256), **mk})
_full = dict(n_mels=128, n_fft=400)
def _a(n): return torch.hann_window(n)
def _b(n): return torch.hann_window(n)**2

SAME = {
    'hop_length None is half the window': (_lin(hop_length=50), _lin(hop_length=None)), 'half of n_fft where win_length is None too': (_lin(win_length=128, hop_length=64), _lin(win_length=None, hop_length=None)),
    'win_length None is n_fft': (_mel(win_length=256), _mel(win_length=None)), 'f_max None is half the rate': (_mel(f_max=None), _mel(f_max=8000.)),
    'whole numbers': (_mel(f_min=0., f_max=8000., power=2.), _mel(f_min=0, f_max=8000, power=2)),
    'sample_rate None is that of the audio': (_mel(sample_rate=None), _mel(sample_rate=16000)), 'a dict is a configuration': (_mel(),
    AudioToSpec.from_cfg({f:getattr(AudioConfig.BasicMelSpectrogram(n_fft=256, win_length=200, hop_length=60, n_mels=8), f) for f in AudioConfig.BasicMelSpectrogram.__dataclass_fields__})),
    'a factory is a configuration': (_lin(), SpectrogramTransformer(mel=False)(n_fft=128, win_length=100, hop_length=40)), 'no arguments for the window': (_lin(wkwargs=None), _lin(wkwargs={})),
    'without dB, no reference of dB': (_raw(), _raw(stype='magnitude')), 'without dB, no top_db': (_raw(), _raw(top_db=80.)), 'without centring, no padding mode': (_lin(center=False), _lin(center=False, pad_mode='constant')),
    'cepstra: sample_rate': (_mfcc(), _mfcc(sample_rate=16000)), 'cepstra: no melkwargs': (_mfcc(melkwargs=None), AudioToMFCC(n_mfcc=5, melkwargs={})), 'cepstra: default n_mels': (AudioToMFCC(), AudioToMFCC(melkwargs=dict(n_mels=128))),
    'cepstra: default n_fft': (AudioToMFCC(), AudioToMFCC(melkwargs=dict(n_fft=400))), 'cepstra: hop_length': (_mfcc(), _mfcc(melkwargs=dict(hop_length=128))),
    'cepstra: f_max': (_mfcc(), _mfcc(melkwargs=dict(f_max=8000.))), 'cepstra: win_length': (_mfcc(), _mfcc(melkwargs=dict(win_length=256)))}

@pytest.mark.filterwarnings('ignore:.*mel filters hold no frequency')
@pytest.mark.parametrize('how', list(SAME))
def test_one_pipeline_has_one_fingerprint_however_spelled(how):
    a,b = (t(_wave()) for t in SAME[how])
    assert torch.equal(a.plain(), b.plain())  # they are the same
    assert fingerprint(a)==fingerprint(b)
    _stats(a[None], groups=0, settings=None).check(b)

@pytest.mark.parametrize('a,b', [(dict(hop_length=None),dict(hop_length=4)), ({},dict(win_length=8, hop_length=4)), (dict(win_length=6),dict(win_length=6, hop_length=3)),
    (dict(mel=True),dict(mel=True, f_min=0., f_max=8000)), (dict(mel=True, f_max=None),dict(mel=True, f_max=8000.)),
    (dict(waveform_norm=None),{}), (dict(power=2),dict(power=2.)), (dict(nchannels=1),{}), (dict(sample_rate=16000),{})])
def test_settings_written_by_hand_are_filled_in(a, b):
    a,b = (fingerprint(AudioSpectrogram.create(torch.zeros(1,4,9), settings={**dict(sr=16000, n_fft=8), **d})) for d in (a,b))
    assert a==b and a['sample_rate']==16000 and a['channels']==1 and a['rows']==4

OTHER = {  # pipeline, another one, and which settings differ
    'n_fft': (_lin(), _lin(n_fft=256), {'n_fft','rows'}), 'win_length': (_lin(), _lin(win_length=90), {'win_length'}), 'hop_length': (_lin(), _lin(hop_length=41), {'hop_length'}),
    'window': (_lin(), _lin(window_fn=torch.hamming_window), {'window'}),
    'window of two functions without names': (_lin(window_fn=lambda n: torch.hann_window(n)), _lin(window_fn=lambda n: torch.hann_window(n)**2), {'window'}), 'window of two functions': (_lin(window_fn=_a), _lin(window_fn=_b), {'window'}),
    'window_args': (_lin(), _lin(wkwargs=dict(periodic=False)), {'window_args'}), 'power': (_raw(), _raw(power=1.), {'power','units'}), 'another power': (_raw(), _raw(power=1.5), {'power','units'}),
    'normalized': (_lin(), _lin(normalized=True), {'normalized'}),
    'center': (_lin(pad_mode='constant'), _lin(center=False, pad_mode='constant'), {'center'}), 'pad': (_lin(), _lin(pad=9), {'pad'}), 'pad_mode': (_lin(), _lin(pad_mode='constant'), {'pad_mode'}),
    'onesided': (_lin(), _lin(onesided=False), {'onesided','rows'}),
    'mel': (_lin(n_fft=256, win_length=200, hop_length=60), _mel(), {'mel','n_mels','f_min','f_max','mel_scale','mel_norm','rows'}), 'n_mels': (_mel(), _mel(n_mels=9), {'n_mels','rows'}),
    'f_min': (_mel(), _mel(f_min=40.), {'f_min'}), 'f_max': (_mel(), _mel(f_max=7999.), {'f_max'}),
    'mel_scale': (_mel(), _mel(mel_scale='slaney'), {'mel_scale'}), 'mel_norm': (_mel(), _mel(norm='slaney'), {'mel_norm'}), 'db_of': (_mel(), _mel(stype='magnitude'), {'db_of'}),
    'top_db': (_mel(), _mel(top_db=20.), {'top_db'}), 'top_db a little': (_mel(top_db=20.), _mel(top_db=20.5), {'top_db'}),
    'to_db': (_lin(), SpectrogramTransformer(mel=False, to_db=False)(n_fft=128, win_length=100, hop_length=40), {'to_db','db_ref','db_floor','units'}),  # stype and top_db mean nothing without dB, nor pad_mode without centring
    'n_mfcc': (_mfcc(), _mfcc(n_mfcc=6), {'n_mfcc','rows'}), 'mfcc_norm': (_mfcc(), _mfcc(norm=None), {'mfcc_norm'}), 'log_mels': (_mfcc(), _mfcc(log_mels=True), {'log_mels'}),
    **{f'cepstra {k}': (_mfcc(), _mfcc(melkwargs={k:v}), None) for k,v in dict(n_mels=9, n_fft=300, hop_length=99, win_length=77, f_min=50., f_max=5000., mel_scale='slaney', norm='slaney', power=1.,
    window_fn=torch.hamming_window, normalized=True, center=False, pad=5, pad_mode='constant').items()}}

@pytest.mark.filterwarnings('ignore:.*mel filters hold no frequency')
@pytest.mark.parametrize('how', list(OTHER))
def test_a_setting_that_changes_the_numbers_changes_the_fingerprint(how):
    a,b,keys = OTHER[how]; a,b = a(_wave()),b(_wave())
    assert a.shape!=b.shape or (a.plain()-b.plain()).abs().max()>1e-4  # it does change them
    fa,fb = fingerprint(a),fingerprint(b)
    assert fa!=fb
    differ = {k for k in {**fa,**fb} if fa.get(k,'no')!=fb.get(k,'no')}
    assert keys is None or keys<=differ<=keys|{'center':{'pad_mode'}, 'to_db':{'db_of','top_db'}}.get(how, set())
    _check_lists(a, b, differ)

def _check_lists(a, b, differ):
    "Statistics of `a` refuse `b`, with each setting and both values"
    s,fa,fb = _stats(a.plain()[None], groups=0, settings=a.settings, freqs=False),fingerprint(a),fingerprint(b)
    show = lambda d,k: json.dumps(d[k]) if k in d else 'not set'
    for f in (lambda: s.check(b), lambda: SpecNormalize.from_stats(s, axes='global')(b), lambda: SpecNormalize.from_stats(s, axes='global')(b[None])):
        with pytest.raises(ValueError, match=f'belong to another pipeline, {len(differ)} settings differ:\n') as e: f()
        assert set(re.findall(r'^  (.*) in the statistics, (.*) here$', str(e.value), re.M))=={(f'{k}: {show(fa,k)}',show(fb,k)) for k in differ} and 'unchecked=True uses them anyway' in str(e.value)
    s.check(a); SpecNormalize.from_stats(s, axes='global')(a)
    assert torch.isfinite(SpecNormalize.from_stats(s, axes='global', unchecked=True)(b).plain()).all()

def test_rate_channels_and_waveform_normalization_are_part_of_the_fingerprint():
    for to in (_lin(),_mel(),_mfcc()):
        a,n = to(_wave()),AudioNormalize()
        extra = {'f_max','melkwargs'} & {*fingerprint(a)}  # half of the rate
        for b,keys in ((to(_wave(sr=8000)),{'sample_rate'}), (to(_wave(c=2)),{'channels'}), (to(n(_wave())),{'waveform_norm'}), (to(n(_wave(c=2))),{'waveform_norm','channels'}), (to(_wave(sr=8000,c=2)),{'sample_rate','channels'})):
            fa,fb = fingerprint(a),fingerprint(b)
            differ = {k for k in {**fa,**fb} if fa.get(k,'no')!=fb.get(k,'no')}
            assert keys<=differ<=keys|(extra if 'sample_rate' in keys else set())
            _check_lists(a, b, differ)
        for b in (to(_wave(n=3000)), to(_wave(seed=5)), to(AudioTensor(_wave(), sr=16000, fn='b.wav'))): assert fingerprint(b)==fingerprint(a)  # what is no setting

def test_spectrograms_without_settings_are_unknown_and_refused_by_known_statistics():
    x = AudioSpectrogram.create(torch.randn(1,4,9))
    assert fingerprint(x)=='unknown'
    with pytest.raises(ValueError, match='do not say how they were made; unchecked=True'): _stats().check(x)
    _stats(settings=None).check(x); _stats(settings=None).check(AudioSpectrogram.create(x, settings=S))
    for s in (dict(mel=True), dict(mel=True, sr=None), dict(n_fft=8), dict(sr=8000), dict(power=2.), dict(n_mfcc=3),
        dict(units='dB')): assert fingerprint(AudioSpectrogram.create(x, settings=s))==fingerprint(AudioSpectrogram.create(x[None], settings=dict(s)))

@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('to', [_lin(),_mel(f_max=7000.5),_raw(power=1.),_mfcc(),_lin(window_fn=torch.kaiser_window, wkwargs=dict(periodic=True, beta=7.5))])
def test_a_loaded_fingerprint_equals_that_of_the_pipeline(to, suffix, tmp_path):
    x = to(AudioNormalize()(_wave(c=2)))
    s = SpecStats.load(_stats(x.plain()[None], settings=x.settings, freqs=False).save(tmp_path/f'a{suffix}'))
    assert s.fingerprint==fingerprint(x)==fingerprint(x[None])
    s.check(x); s.check(torch.stack([x,x])); SpecNormalize.from_stats(s, axes=(0,3))(x)

@pytest.mark.parametrize('on_items', [False,True])
@pytest.mark.parametrize('normalize', [False,True])
def test_items_and_batches_of_a_loader_have_one_fingerprint(on_items, normalize, synthetic):
    tfms = [*([AudioNormalize()] if normalize else []),_mel()]
    df = pd.read_csv(synthetic/'meta'/'synthetic.csv')
    block = DataBlock(blocks=(AudioBlock, CategoryBlock), get_x=ColReader('filename', pref=synthetic/'audio'), get_y=ColReader('category'), splitter=CrossValidationSplitter(), item_tfms=tfms if on_items else None,
        batch_tfms=None if on_items else tfms)
    dls = block.dataloaders(df, bs=16, num_workers=0)
    a = AudioTensor.create(synthetic/'audio'/df.filename[0])
    for t in tfms: a = t(a)
    for b in (dls.train.one_batch()[0], dls.valid.one_batch()[0], dls.train.one_batch()[0][2]): assert fingerprint(b)==fingerprint(a)
    s = collect_stats(dls, quantiles=False, progress=False)
    assert s.fingerprint==fingerprint(a)
    norm = SpecNormalize.from_stats(s, axes='frequency'); norm(a); z = norm(dls.train.one_batch()[0])
    with pytest.raises(ValueError, match=r'1 settings differ:\n  units: "dB" in the statistics, "std" here'): norm(z)
    norm(norm.decode(z))
    with pytest.raises(ValueError, match='waveform_norm'): norm(_mel()(_wave()) if normalize else _mel()(AudioNormalize()(_wave())))

@pytest.mark.parametrize('axes', ['global','frequency',(0,3),(0,1,2,3)])
def test_normalizing_twice_is_refused_and_unchecked_allows_it(axes):
    x = AudioSpectrogram.create(torch.as_tensor(_x(c=2)), settings=S); rec = StatsRecorder(axes); rec.update(x)
    for n in (SpecNormalize.from_stats(SpecStats.from_recorder(rec), axes=axes), SpecNormalize.from_recorder(rec)):
        z = n(x)
        assert torch.allclose(z.plain().mean(rec.red_dims), torch.zeros((), dtype=torch.float64), atol=1e-12) and torch.allclose(z.plain().std(rec.red_dims, correction=0), torch.ones((), dtype=torch.float64), atol=1e-12)
        for o in (z, z[0]):
            with pytest.raises(ValueError, match='units: "dB" in the statistics, "std" here'): n(o)
    assert torch.isfinite(SpecNormalize.from_recorder(rec, unchecked=True)(z).plain()).all()

def test_axes_must_fit_the_use():
    s = _stats(_x(c=2)); x = AudioSpectrogram.create(torch.as_tensor(_x(c=2)), settings=S)
    for have,want,gone in (('global','frequency','frequency'), ('global',(0,3),'frequency'), ('frequency','global','channel'), ('frequency',(0,3),'channel'), ((0,1,2,3),(0,3),'channel and frequency')):
        with pytest.raises(ValueError, match=f'hold none for each {gone}'): s.reduce(have).reduce(want)
        with pytest.raises(ValueError, match=f'hold none for each {gone}'): SpecNormalize.from_stats(s.reduce(have), axes=want)
    for axes in ('global','frequency',(0,3),(0,1,2,3)): assert torch.equal(SpecNormalize.from_stats(s, axes=axes).mean, s.reduce(axes).mean); s.reduce(axes).check(x)
    with pytest.raises(ValueError, match='std: the SpecStats holds it'): SpecNormalize.from_stats(s, 'frequency')
    one = _stats()  # of one channel, 'global' and 'frequency' say the same of it
    assert torch.equal(one.reduce('frequency').reduce('global').mean, one.reduce('global').mean)
    for args in (([1.,2.,3.],[1.,1.,1.],None,'global'), (np.zeros((2,3)),np.ones((2,3)),None,'frequency')):  # as many numbers as there are no axes for
        with pytest.raises(ValueError, match='axes'): SpecStats(*args)

@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('make', [np.array, torch.tensor])
def test_statistics_do_not_change_with_the_arrays_they_were_made_of(make):
    m,s,n = make([1.,2.]),make([3.,4.]),make([5.,6.])
    for r in (SpecStats(m, s, n), SpecStats.from_arrays(m, s, n, unchecked=True), SpecStats(m, count=n, m2=s), SpecStats.from_arrays(m, s, 5, unchecked=True)):
        was = [v.clone() for v in r._table]
        for v in (m,s,n): v += 1
        assert all(torch.equal(a,b) for a,b in zip(r._table, was))

@pytest.mark.parametrize('args,msg', [((1.,),'std: expected together'), (([1.,2.],[1.]),'std: expected shape'), ((0.,-1.),'std: expected 0 or more'), ((float('nan'),1.),'mean: NaN'),
    ((0.,float('inf')),'variance: NaN'), ((0.,1.,0.),'count: 0 at'), ((0.,1.,-2.),'count: expected 0'),
    (([],[]),'mean: expected a number'), ((np.zeros((2,2,2,2)),np.ones((2,2,2,2))),'mean: expected a number'), (([1.,2.,3.],[1.,1.,1.],[1.,2.]),'count'), ((0.,1.,None,None,'mine'),'fingerprint'),
    (([1.,2.],[1.,1.],None,None,'unknown',[1.]),'freqs: expected 2')])
def test_numbers_that_are_no_statistics_are_refused(args, msg):
    with pytest.raises(ValueError, match=msg): SpecStats(*args)

# --- other people's tools

def _kaldi_sums(x):
    "By numpy: sums and count, sums of squares and 0"
    v = np.moveaxis(np.asarray(x, dtype=np.float64), 2, 0).reshape(x.shape[2],-1)
    return np.array([[*v.sum(1),v.shape[1]],[*(v**2).sum(1),0]])

@pytest.mark.parametrize('binary', [True,False])
@pytest.mark.parametrize('c', [1,2])
def test_kaldiio_reads_the_sums_that_are_written(binary, c, tmp_path):
    kaldiio = pytest.importorskip('kaldiio')
    x = _x(c=c); s = _stats(x); file = s.to_kaldi(tmp_path/'cmvn.ark', key='all-of_it', binary=binary)
    found = dict(kaldiio.load_ark(str(file)))
    assert list(found)==['all-of_it'] and found['all-of_it'].dtype==(np.float64 if binary else found['all-of_it'].dtype)
    for m in (found['all-of_it'], kaldiio.load_mat(f'{file}:{len("all-of_it ")}')):
        # sums of a thousand float64 numbers; kaldiio keeps text in float32
        assert m.shape==(2,5) and np.allclose(m, _kaldi_sums(x), rtol=1e-12 if binary else 1e-6, atol=1e-9) and m[0,-1]==x[:,:,0].size
    back = SpecStats.from_kaldi(file, unchecked=True); f = s.reduce('frequency')
    assert torch.equal(back.count, f.count) and torch.allclose(back.mean, f.mean, rtol=1e-13) and torch.allclose(back.std, f.std, rtol=1e-10) and back.axes==(0,3)
    for key in ('','a b','a\n'):
        with pytest.raises(ValueError, match='key: expected a name without spaces'): s.to_kaldi(file, key=key)
    with pytest.raises(ValueError, match='count: not known'): SpecStats.from_arrays([1.],[2.], unchecked=True).to_kaldi(file)

@pytest.mark.parametrize('text', [True,False])
@pytest.mark.parametrize('dtype', [np.float32,np.float64])
def test_archives_of_kaldiio_are_read(text, dtype, tmp_path):
    kaldiio = pytest.importorskip('kaldiio')
    x,file = _x(f=80),tmp_path/'cmvn.ark'
    speakers = {f'speaker-{i}':_kaldi_sums(x[4*i:4*i+4]).astype(dtype) for i in range(3)}
    kaldiio.save_ark(str(file), speakers, text=text)
    tol = 1e-10 if dtype==np.float64 and not text else 1e-4  # sums in float32, or as text of 8 digits; a variance is a difference of two
    every = SpecStats.from_kaldi(file, unchecked=True)
    assert every.mean.shape==(1,1,80,1) and np.allclose(every.mean.flatten(), x.mean((0,1,3)), rtol=tol) and np.allclose(every.std.flatten(), x.std((0,1,3)), rtol=10*tol) and (every.count==108).all()
    for i in range(3):
        one = SpecStats.from_kaldi(str(file), key=f'speaker-{i}', unchecked=True); own = x[4*i:4*i+4]
        assert np.allclose(one.mean.flatten(), own.mean((0,1,3)), rtol=tol) and np.allclose(one.std.flatten(), own.std((0,1,3)), rtol=10*tol) and (one.count==36).all()
    _refused(lambda: SpecStats.from_kaldi(file, key='nobody', unchecked=True), file, r"key: expected one of \['speaker-0', 'speaker-1', 'speaker-2'\], got 'nobody'")
    _refused(lambda: SpecStats.from_kaldi(file), file, 'unchecked=True')
    if not text: kaldiio.save_mat(str(file), speakers['speaker-1'])
    else: file.write_text(' [\n'+'\n'.join('  '+' '.join(map(str, r)) for r in speakers['speaker-1'].tolist())+' ]\n')
    lone = SpecStats.from_kaldi(file, unchecked=True)
    assert np.allclose(lone.mean.flatten(), x[4:8].mean((0,1,3)), rtol=tol) and 'cmvn.ark' in repr(lone)

_good = 'a [\n 10 20 5\n 30 90 0 ]\n'
@pytest.mark.parametrize('text', ['', ' ', '\n', 'a', 'a ', 'a [', 'a [ ]', 'a [\n 1 2 3 ]', 'a [\n 1 2 3\n 1 2 3\n 1 2 3 ]', 'a [\n 1 2 3\n 1 2 ]', 'a [\n 10 20 5\n 30 90 0\n', 'a [\n 10 x 5\n 30 90 0 ]',
    'a 10 20 5 30 90 0', 'a [\n 5\n 0 ]', 'a [\n 10 20 0\n 30 90 0 ]',
    'a [\n 10 20 -5\n 30 90 0 ]', 'a [\n 10 20 5\n 1 90 0 ]', 'a [\n nan 20 5\n 30 90 0 ]', 'a [\n 10 20 5\n inf 90 0 ]', 'a [\n 10 20 nan\n 30 90 0 ]', _good+'b [\n 1 2\n 3 0 ]\n', _good+'rest', _good+'b',
    _good+'b [', '[\n 10 20 5\n 30 90 0 ]\nrest', '[\n 10 20 5\n 30 90 0 ]\n[\n 10 20 5\n 30 90 0 ]\n'])
def test_malformed_text_archives_are_refused(text, tmp_path):
    (tmp_path/'fine.txt').write_text(_good); assert SpecStats.from_kaldi(tmp_path/'fine.txt', unchecked=True).mean.flatten().tolist()==[2.,4.]
    (tmp_path/'bad.txt').write_text(text); _refused(lambda: SpecStats.from_kaldi(tmp_path/'bad.txt', unchecked=True), 'bad.txt', error=ValueError)

def test_malformed_binary_archives_are_refused(tmp_path):
    kaldiio = pytest.importorskip('kaldiio')
    file,cmvn = tmp_path/'bad.ark',_kaldi_sums(_x())
    go = lambda: _refused(lambda: SpecStats.from_kaldi(file, unchecked=True), file, error=ValueError)
    kaldiio.save_ark(str(file), {'one':cmvn}); b = file.read_bytes()
    for n in range(len(b)): file.write_bytes(b[:n]); go()
    for extra in (b'x', b'\0', b'two ', b'two \0BDM ', b'\0B', b[4:]): file.write_bytes(b+extra); go()
    at = b.index(b'\0B')
    for o,v in ((2,b'XM '),(2,b'CM '),(2,b'DV '),(2,b'FM '),(5,b'\5'),(10,b'\5'),(6,b'\xff\xff\xff\xff'),(11,b'\xff\xff\xff\xff'),(6,b'\xff\xff\xff\x7f'),(6,b'\3\0\0\0'),(6,b'\0\0\0\0')):
        file.write_bytes(b[:at+o]+v+b[at+o+len(v):]); go()
    for m in (cmvn[:1], np.concatenate([cmvn,cmvn]), cmvn[:,:1], cmvn[0], cmvn[0].astype(np.int32), np.where(np.arange(5)<4, cmvn, 0), -cmvn, np.where(np.arange(5)<1, np.nan, cmvn),
        cmvn*[[1.],[.1]]): kaldiio.save_ark(str(file), {'one':m}); go()
    kaldiio.save_ark(str(file), {'one':cmvn}, compression_method=2); go()
    kaldiio.save_ark(str(file), {'one':cmvn, 'two':cmvn[:,1:]}); go()

@pytest.mark.parametrize('more', [b'x', b'\0', b'two ', b' [ 1 2 3 ]', None])
def test_bytes_behind_a_lone_matrix_are_refused(more, tmp_path):
    kaldiio = pytest.importorskip('kaldiio')
    file = tmp_path/'bad.ark'; kaldiio.save_mat(str(file), _kaldi_sums(_x())); b = file.read_bytes()
    SpecStats.from_kaldi(file, unchecked=True)
    file.write_bytes(b+(more or b)); _refused(lambda: SpecStats.from_kaldi(file, unchecked=True), file, error=ValueError)

@pytest.mark.parametrize('text', [True,False])
def test_a_key_that_comes_twice_is_not_dropped_in_silence(text, tmp_path):
    "Such as archives of two jobs put together with cat: entries are summed or refused"
    kaldiio = pytest.importorskip('kaldiio')
    file,x = tmp_path/'twice.ark',_x()
    for part in (x[:5],x[5:]): kaldiio.save_ark(str(file), {'one':_kaldi_sums(part)}, append=True, text=text)
    try: assert SpecStats.from_kaldi(file, unchecked=True).count.max()==x[:,:,0].size
    except ValueError as e: assert 'one' in str(e) and 'twice.ark' in str(e)

@given(b=st.binary(max_size=60)|st.text('ab[] \n0123.e-', max_size=40).map(str.encode))
def test_any_bytes_are_an_archive_or_refused_by_name(b, tmp_path_factory):
    file = tmp_path_factory.getbasetemp()/'any.ark'; file.write_bytes(b)
    try: assert torch.isfinite(SpecStats.from_kaldi(file, unchecked=True).std).all()
    except ValueError as e: assert 'any.ark' in str(e)

def test_values_normalized_by_an_ast_feature_extractor_are_ours(tmp_path):
    AST = pytest.importorskip('transformers').ASTFeatureExtractor
    fe = AST(mean=-5.25, std=3.75); fe.save_pretrained(tmp_path)
    x = np.random.default_rng(0).normal(size=(1,1,128,50)).astype(np.float32)*9-5
    for config in (fe, tmp_path, str(tmp_path), tmp_path/'preprocessor_config.json', fe.to_dict(), dict(mean=-5.25, std=3.75)):
        s = SpecStats.from_ast(config, unchecked=True)
        ours = SpecNormalize.from_stats(s, axes='global')(AudioSpectrogram.create(torch.from_numpy(x)))
        assert np.allclose(ours.plain().numpy(), fe.normalize(x), rtol=1e-6, atol=1e-6)  # float32
        assert s.to_ast()==dict(mean=-5.25, std=3.75, do_normalize=True) and (s.mean.item(),s.std.item())==(-5.25,7.5) and 'ASTFeatureExtractor' in repr(s)
        with pytest.raises(ValueError, match='unchecked=True'): SpecStats.from_ast(config)
    v = _stats(torch.from_numpy(x)); theirs = AST(**v.to_ast()).normalize(x)  # it divides by twice its std, we by ours
    assert np.allclose(theirs, SpecNormalize.from_stats(v, axes='global')(AudioSpectrogram.create(torch.from_numpy(x), settings=S)).plain().numpy(), rtol=1e-5, atol=1e-6) and abs(theirs.std()-1)<1e-5
    with pytest.raises(ValueError, match='one channel'): _stats(_x(c=2)).to_ast()

@pytest.mark.parametrize('axes', ['frequency',(0,1,2,3)])
def test_merged_channels_are_one_channel_for_a_feature_extractor(axes):
    x = _x(c=2); d = _stats(x).reduce(axes).to_ast()
    assert np.allclose([d['mean'],d['std']*2], [x.mean(),x.std()], rtol=1e-12)

@pytest.mark.parametrize('config', [{}, dict(mean=1.), dict(std=1.), dict(mean='1', std=1.), dict(mean=True, std=1.), dict(mean=None, std=1.), dict(mean=1., std=0.), dict(mean=1., std=-1.),
    dict(mean=float('nan'), std=1.), dict(mean=1., std=float('inf')), dict(mean=[1.], std=[1.]),
    dict(mean=1., std=1., do_normalize=False), [1.,2.], 3, 'text', None])
def test_bad_configs_of_a_feature_extractor_are_refused(config, tmp_path):
    file = tmp_path/'preprocessor_config.json'; file.write_text(json.dumps(config))
    for p in (file, tmp_path): _refused(lambda: SpecStats.from_ast(p, unchecked=True), file, error=ValueError)
    if isinstance(config, dict):
        with pytest.raises(ValueError, match='mean|std|do_normalize'): SpecStats.from_ast(config, unchecked=True)
    for b in (b'', b'{', b'\xff', b'['*100_000): file.write_bytes(b); _refused(lambda: SpecStats.from_ast(tmp_path, unchecked=True), file, error=ValueError)
    (tmp_path/'empty').mkdir(); _refused(lambda: SpecStats.from_ast(tmp_path/'empty', unchecked=True), 'preprocessor_config.json', error=FileNotFoundError)

def test_numpy_numbers_of_a_feature_extractor_are_numbers():
    for t in (np.float32,np.float64,int): assert SpecStats.from_ast(dict(mean=t(-4), std=t(2)), unchecked=True).std.item()==4

m80,s80 = np.linspace(-60,-20,80),np.linspace(1,20,80)
@pytest.mark.parametrize('args', [(dict(norm_means=torch.tensor(m80), norm_stds=torch.tensor(s80)),), (dict(norm_means=torch.nn.Parameter(torch.tensor(m80)), norm_stds=torch.tensor(s80)),),
    (dict(norm_means=m80, norm_stds=s80, more=3),), (dict(fixed_mean=m80.tolist(), fixed_std=s80.tolist()),),
    (dict(mean=m80, std=s80),), (m80,s80), (m80.tolist(),s80.tolist()), (m80[None,:,None],s80[None,:,None]), (torch.tensor(m80)[None,None,:,None],torch.tensor(s80)[None,None,:,None])])
def test_arrays_of_lhotse_nemo_and_plain_ones_are_read(args):
    s = SpecStats.from_arrays(*args, unchecked=True)
    assert s.mean.shape==(1,1,80,1) and np.array_equal(s.mean.flatten(), m80) and np.allclose(s.std.flatten(), s80, rtol=1e-15) and s.axes==(0,3)
    with pytest.raises(ValueError, match='count: not known'): s.count
    with pytest.raises(ValueError, match='unchecked=True'): SpecStats.from_arrays(*args)
    lh,ne = s.to_lhotse(),s.to_nemo()
    assert lh['norm_means'].dtype==lh['norm_stds'].dtype==np.float32 and np.allclose(lh['norm_means'], m80, rtol=1e-7) and np.allclose(lh['norm_stds'], s80, rtol=1e-7) and lh['norm_means'].shape==(80,)
    assert isinstance(ne['fixed_mean'], list) and ne['fixed_mean']==m80.tolist() and np.allclose(ne['fixed_std'], s80, rtol=1e-15) and json.dumps(ne)
    x = np.random.default_rng(0).normal(size=(2,1,80,7)); z = SpecNormalize.from_stats(s, axes='frequency')(AudioSpectrogram.create(torch.tensor(x))).plain().numpy()
    assert np.allclose(z, (x-m80[:,None])/s80[:,None], rtol=1e-12)
    assert SpecStats.from_arrays(ne, unchecked=True)==SpecStats.from_arrays(*((dict(fixed_mean=m80, fixed_std=ne['fixed_std']),)), unchecked=True)

@pytest.mark.parametrize('dtype', [torch.float16,torch.bfloat16,torch.float32])
def test_tensors_of_any_precision_are_read(dtype):
    m,s = torch.tensor([1.5,-2.]),torch.tensor([1.,.5])
    assert SpecStats.from_arrays(dict(norm_means=m.to(dtype), norm_stds=s.to(dtype)), unchecked=True)==SpecStats.from_arrays(m.numpy(), s.numpy(), unchecked=True)

def test_exported_arrays_are_those_of_all_channels():
    x = _x(c=2); s = _stats(x); m,sd = x.mean((0,1,3)),x.std((0,1,3))
    assert np.allclose(s.to_lhotse()['norm_means'], m, rtol=1e-6) and np.allclose(s.to_lhotse()['norm_stds'], sd, rtol=1e-6) and np.allclose(s.to_nemo()['fixed_mean'], m, rtol=1e-12) and np.allclose(s.to_nemo()['fixed_std'], sd, rtol=1e-12)
    one = SpecStats.from_arrays(-4., 2., count=100, unchecked=True)
    assert one.axes==(0,2,3) and one.count.item()==100 and SpecStats.from_arrays([1.,2.],[1.,1.], count=7, unchecked=True).count.flatten().tolist()==[7,7]

@pytest.mark.parametrize('args', [({'a':1},), ([1.,2.],), ([1.,2.],[1.]), ([1.,2.],[1.,-1.]), ([1.,float('nan')],[1.,1.]), ([1.,2.],[1.,1.],0), ([1.,2.],[1.,1.],[1.,2.,3.]), ([],[]), (dict(norm_means=m80, fixed_std=s80),)])
def test_arrays_that_are_no_statistics_are_refused(args):
    with pytest.raises(ValueError): SpecStats.from_arrays(*args, unchecked=True)

@pytest.mark.parametrize('axes', ['frequency','global',(0,3)])
@pytest.mark.parametrize('counted', [True,False])
def test_npz_round_trip(axes, counted, tmp_path):
    s = _stats(_x()).reduce(axes) if counted else SpecStats.from_arrays(*((m80,s80) if axes!='global' else (1.,2.)), unchecked=True)
    file = s.to_npz(tmp_path/'a.npz')
    with np.load(file, allow_pickle=False) as z:
        assert set(z.files)=={'mean','std',*(['count'] if counted else [])} and all(z[k].dtype==np.float64 for k in z.files) and np.array_equal(np.ravel(z['mean']), s.mean.flatten()) and np.array_equal(np.ravel(z['std']), s.std.flatten())
    back = SpecStats.from_npz(file, unchecked=True)
    assert torch.equal(back.mean, s.mean) and torch.allclose(back.std, s.std, rtol=1e-15) and (not counted or torch.equal(back.count, s.count)) and back.counted==counted and 'a.npz' in repr(back)
    _refused(lambda: SpecStats.from_npz(file), file, 'unchecked=True')

@pytest.mark.parametrize('dtype', [np.float32,np.float64])
def test_sums_of_espnet_are_read(dtype, tmp_path):
    x = _x(f=80); v = np.moveaxis(x, 2, 0).reshape(80,-1)
    for count in (v.shape[1], np.array(v.shape[1]), np.array([v.shape[1]]), float(v.shape[1])):
        np.savez(tmp_path/'stats.npz', count=count, sum=v.sum(1).astype(dtype), sum_square=(v**2).sum(1).astype(dtype))
        s = SpecStats.from_npz(tmp_path/'stats.npz', unchecked=True)
        tol = 1e-10 if dtype==np.float64 else 1e-5
        assert np.allclose(s.mean.flatten(), v.mean(1), rtol=tol) and np.allclose(s.std.flatten(), v.std(1), rtol=10*tol) and (s.count==108).all()

@pytest.mark.parametrize('arrays', [dict(mean=[1.,2.]), dict(std=[1.,2.]), dict(sum=[1.,2.], count=3), dict(count=0, sum=[1.,2.], sum_square=[4.,4.]), dict(count=4, sum=[1.,2.], sum_square=[0.,4.]),
    dict(count=-4, sum=[1.,2.], sum_square=[4.,4.]), dict(count=[], sum=[1.,2.], sum_square=[4.,4.]),
    dict(count=2, sum=[1.,2.], sum_square=[4.,4.,4.]), dict(count=np.nan, sum=[1.,2.], sum_square=[4.,4.]), dict(count=2, sum=[1.,np.nan], sum_square=[4.,4.]), dict(mean=[1.,2.], std=[1.]),
    dict(mean=[1.,np.inf], std=[1.,1.]), dict(mean=[1.,2.], std=[1.,-1.]), dict(mean=['a','b'], std=[1.,1.]),
    dict(mean=np.array([1.,2.],dtype=object), std=[1.,1.]), dict(mean=[1.,2.], std=[1.,1.], count=np.array([1,2],dtype=object)), dict(mean=[1.,2.], std=[1.,1.], count=[1.,2.,3.]), dict(mean=[1.,2.], std=[1.,1.], count=[1.,0.]), dict()])
def test_npz_files_that_are_no_statistics_are_refused(arrays, tmp_path):
    np.savez(tmp_path/'a.npz', **arrays); _refused(lambda: SpecStats.from_npz(tmp_path/'a.npz', unchecked=True), 'a.npz', error=ValueError)

def test_broken_npz_files_are_refused(tmp_path):
    file = _stats().to_npz(tmp_path/'a.npz'); b = file.read_bytes()
    for n in range(0, len(b), 7): file.write_bytes(b[:n]); _refused(lambda: SpecStats.from_npz(file, unchecked=True), file, error=ValueError)
    with open(file, 'wb') as f: np.save(f, np.zeros(3))
    _refused(lambda: SpecStats.from_npz(file, unchecked=True), file, 'expected an npz file, got a lone array', error=ValueError)

# --- quantiles

_to_units = {'dB':lambda u: u, 'power':lambda u: 10.**(u/10), 'magnitude':lambda u: 10.**(u/20), 'coefficient':lambda u: np.sinh(u/10), '':lambda u: u}
_of_units = {'dB':S, 'power':dict(sr=16000, power=2.), 'magnitude':dict(sr=16000, power=1.), 'coefficient':dict(sr=16000, n_mfcc=4), '':dict(sr=16000, power=1.5)}

def _check_quantiles(s, v, units, ranks):
    "Against numpy's inverted_cdf, at ranks where no rounding of q*n can choose another value"
    n = len(v); q = (np.asarray(ranks)+.5)/n
    got = s.quantile(q).reshape(len(q)).numpy()
    want = np.quantile(v, q, method='inverted_cdf')
    assert np.array_equal(want, np.sort(v)[ranks])
    # values are binned in float32: a value at the edge of a bin may be counted in its neighbour, 1e-5 dB away; power below 1e-20 counts as that
    err = np.array([quantile_error(g, units or 'dB') for g in got])
    far = (np.abs(got-want)-1e-6*np.abs(want)-1e-19)/err
    assert far.max()<=1.001, f'{got[far.argmax()]}: expected {want[far.argmax()]} within {err[far.argmax()]}'
    assert (got>=v.min()).all() and (got<=v.max()).all()
    assert s.quantile(0).item()==v.min()==s.min.item() and s.quantile(1).item()==v.max()==s.max.item()

@pytest.mark.parametrize('units', list(_to_units))
@pytest.mark.parametrize('shape', ['normal','skewed','two levels'])
def test_quantiles_of_spectra_agree_with_numpy(units, shape):
    rng = np.random.default_rng(0); n = 4000
    u = dict(normal=rng.normal(size=n)*12-40, skewed=-100+rng.gamma(1,20,n), **{'two levels':np.where(rng.random(n)<.4, -100., rng.normal(size=n)*3-20)})[shape]
    v = _to_units[units](u).astype(np.float32).astype(np.float64)
    _check_quantiles(_stats(v.reshape(4,1,1,-1), settings=_of_units[units], freqs=False), v, units, np.linspace(0,n-1,99).astype(int))

@given(u=st.lists(st.one_of(st.floats(-199.5,199.5,width=32), st.sampled_from([.01,-.01,.24,.25,30.,-60.,-199.99,199.99])), min_size=1, max_size=12), units=st.sampled_from(list(_to_units)))
def test_quantiles_of_any_values_are_within_quantile_error(u, units):
    v = _to_units[units](np.array(u)).astype(np.float32).astype(np.float64)
    _check_quantiles(_stats(v.reshape(1,1,1,-1), settings=_of_units[units], freqs=False), v, units, np.arange(len(v)))

def test_a_rank_that_is_a_whole_number_is_that_value():
    v = np.array([-70.,-50.,-20.,10.]); s = _stats(v.reshape(1,1,1,4)); q = [.25,.5,.75]
    assert np.array_equal(np.quantile(v, q, method='inverted_cdf'), v[:3]) and np.abs(s.quantile(q).flatten().numpy()-v[:3]).max()<=quantile_error(0.)*1.001

@pytest.mark.parametrize('settings', [None,S])
@pytest.mark.parametrize('plain', [True,False])
def test_quantiles_of_unknown_units_are_of_the_values_themselves(plain, settings):
    x = torch.randn(2,1,1,500, dtype=torch.float64)*3
    rec = StatsRecorder(quantiles=True); rec.update(x if plain else AudioSpectrogram.create(x, settings=settings))
    _check_quantiles(SpecStats.from_recorder(rec), x.flatten().numpy(), 'dB', np.arange(0,1000,11))

@given(u=st.lists(st.sampled_from([-1e30,-1e4,-500.,-200.01,-200.,0.,199.99,200.,1e4,1e30]), min_size=1, max_size=8), q=st.floats(0,1), units=st.sampled_from(['dB','coefficient','power','magnitude']))
def test_values_outside_of_the_histogram_still_give_quantiles_between_minimum_and_maximum(u, q, units):
    v = np.array(u); v = np.abs(v) if units in ('power','magnitude') else v
    v = v.astype(np.float32).astype(np.float64)
    s = _stats(v.reshape(1,1,1,-1), settings=_of_units[units], freqs=False)
    assert v.min()<=s.quantile(q).item()<=v.max() and (s.min.item(),s.max.item())==(v.min(),v.max())==(s.quantile(0).item(),s.quantile(1.).item())

def test_histograms_merge_and_reduce_to_those_of_all_values():
    x = _x(9,2,3,40); whole,parts = _stats(x),[_stats(x[a:b]) for a,b in ((0,4),(4,5),(5,9))]
    q = np.linspace(0,1,31)
    for s in ((parts[0]+parts[1])+parts[2], parts[2]+(parts[0]+parts[1])):
        for axes in ((0,3),'frequency','global',(0,1,2,3)): assert torch.equal(s.reduce(axes).quantile(q), whole.reduce(axes).quantile(q))
    _check_quantiles(whole.reduce((0,1,2,3)), x.ravel(), 'dB', np.arange(0,x.size,71))
    got = whole.quantile(q)
    assert got.shape==(31,1,2,3,1) and whole.quantile(.3).shape==(1,2,3,1)==whole.min.shape and torch.equal(whole.quantile([.3])[0], whole.quantile(.3))
    assert np.array_equal(whole.min[0,...,0], x.min((0,3))) and np.array_equal(whole.max[0,...,0], x.max((0,3))) and (got.diff(dim=0)>=0).all()
    for bad in (-.1, 1.1, float('nan'), [.5,2]):
        with pytest.raises(ValueError, match='q: expected numbers from 0 to 1'): whole.quantile(bad)
    for f in (lambda s: s.quantile(.5), lambda s: s.min, lambda s: s.max):
        with pytest.raises(ValueError, match='hold no histograms'): f(_stats(quantiles=False))

@pytest.mark.parametrize('weight', [.9,.5,.1,.01,1e-6,3.,1e6])
def test_a_weight_of_all_changes_no_quantile(weight):
    s = _stats(_x(7,1,3,33)); q = [.05,.25,.5,.75,.95]  # of 231 values, none of these ranks is a whole number, which rounding could push over
    assert torch.allclose(s.scaled(weight).quantile(q), s.quantile(q), rtol=0, atol=1e-9)

@given(weight=st.floats(.01,100), seed=st.integers(0,20))
@settings(max_examples=30)
def test_quantiles_of_weighted_statistics_are_weighted_quantiles(weight, seed):
    x,y = _x(2,1,1,25,seed),_x(3,1,1,30,seed+50)+20
    s = _stats(x).merge(_stats(y), weight=weight)
    v = np.concatenate([x.ravel(),y.ravel()]); w = np.repeat([1.,weight],[x.size,y.size]); o = v.argsort(); cum = w[o].cumsum()/w.sum()
    for q in (.1,.5,.9):
        near = v[o][(cum>=q-.03) & (np.r_[0,cum[:-1]]<=q+.03)]  # ranks within 3 %
        assert near.min()-.26<=s.quantile(q).item()<=near.max()+.26

# --- how sure a mean is

def _clips(b=60, f=5, seed=0, level=None):
    "Clips of unequal length: list of (row, frame)"
    rng = np.random.default_rng(seed); level = rng.normal(size=b)*5 if level is None else level
    return [level[i]+rng.normal(size=(f,1))*2+rng.normal(size=(f,rng.integers(3,40)))*3-30 for i in range(b)]

def _of_clips(clips, groups=128, by=None, **kw):
    n = [v.shape[1] for v in clips]; x = np.full((len(clips),1,clips[0].shape[0],max(n)), -999.)
    for i,v in enumerate(clips): x[i,0,:,:n[i]] = v
    return _stats(x, groups=groups, by=by, lengths=torch.tensor(n), **kw)

def _ratio_se(clips, by=None):
    "The clustered standard error of a mean, by the book (Cochran 1977, 6.4 and 9.3): residuals of cluster sums over the total count"
    by = np.arange(len(clips)) if by is None else np.asarray(by)
    s,n = np.array([v.sum(1) for v in clips]),np.array([v.shape[1] for v in clips],dtype=float)
    m = s.sum(0)/n.sum()
    e = np.array([(s[by==k]-m*n[by==k][:,None]).sum(0) for k in np.unique(by)]); g = len(e)
    return np.sqrt(g/(g-1)*(e**2).sum(0))/n.sum()

@given(b=st.integers(2,30), seed=st.integers(0,99), clustered=st.booleans())
@settings(max_examples=40)
def test_standard_errors_are_those_of_a_clustered_ratio_estimator(b, seed, clustered):
    clips = _clips(b, seed=seed); by = np.random.default_rng(seed).integers(0,max(2,b//3),b) if clustered else None
    assume(by is None or len(set(by))>1)
    s = _of_clips(clips, by=by); every = np.concatenate(clips,1)
    assert np.allclose(s.mean.flatten(), every.mean(1), rtol=1e-12) and np.allclose(s.standard_error().flatten(), _ratio_se(clips, by), rtol=1e-9)
    glob = [v.reshape(1,-1) for v in clips]  # over all rows a clip has as many values as it has frames and rows
    assert np.allclose(s.reduce('global').standard_error().item(), _ratio_se(glob, by), rtol=1e-9)
    se,g = _ratio_se(clips, by),len(set(by)) if clustered else b
    lo,hi = (v.flatten().numpy() for v in s.interval(.8))
    assert np.allclose(hi-lo, 2*sps.t.ppf(.9,g-1)*se, rtol=1e-9) and np.allclose((lo+hi)/2, every.mean(1), rtol=1e-12)

def test_equal_clips_give_the_textbook_standard_error():
    x = _x(20,1,3,10)
    assert np.allclose(_stats(x, groups=50).standard_error().flatten(), sps.sem(x.mean(3)[:,0], 0), rtol=1e-10)

def test_more_clips_than_groups_lose_little():
    "4000 clips dealt to 128 groups: a standard error of 128 values has one itself, 1/sqrt(2*127) = 6.3 %; the root mean square of 20 rows less"
    rng = np.random.default_rng(0); b,f,t = 4000,20,6
    n = rng.integers(1,t+1,b); x = rng.normal(size=(b,1,f,1))*4+rng.normal(size=(b,1,f,t))
    s = _stats(x, groups=128, lengths=torch.tensor(n), quantiles=False)
    clips = [x[i,0,:,:n[i]] for i in range(b)]
    ratio = s.standard_error().flatten().numpy()/_ratio_se(clips)
    assert abs(np.sqrt((ratio**2).mean())-1)<3*.063/np.sqrt(f) and (abs(ratio-1)<4*.063).all() and ratio.std()>.02

def test_clips_of_one_source_count_once():
    "Eight copies of each recording are no more sure than one; as clips they would seem surer by the root of 8"
    clips = _clips(16, seed=3); many,by = clips*8,list(range(16))*8
    one,eight,fooled = _of_clips(clips).standard_error(),_of_clips(many, by=by).standard_error(),_of_clips(many).standard_error()
    assert torch.allclose(one, eight, rtol=1e-10) and torch.allclose(fooled*8**.5*((127/128)/(15/16))**.5, one, rtol=1e-6)

def test_of_a_whole_finite_split_nothing_is_uncertain():
    clips = _clips(30)
    for k,tot in ((30,30),(30,40),(30,1000)):
        s = _of_clips(clips, clips_in_split=tot)
        assert np.allclose(s.standard_error(finite=True).flatten(), _ratio_se(clips)*np.sqrt(1-k/tot), rtol=1e-9, atol=1e-300) and np.allclose(s.standard_error().flatten(), _ratio_se(clips), rtol=1e-9)
        lo,hi = s.interval(finite=True); assert torch.allclose(hi-lo, (s.interval()[1]-s.interval()[0])*(1-k/tot)**.5, rtol=1e-9)
    assert torch.equal(_of_clips(clips).standard_error(True), _of_clips(clips).standard_error())

def test_without_groups_or_with_one_clip_there_is_no_standard_error():
    for s,msg in ((_stats(groups=0),'no groups of clips'), (_stats(_x(1)),'at least two clips'), (_stats(_x(5), by=[3]*5),'at least two clips'), (SpecStats(1.,2.,3.),'no groups')):
        for f in (s.standard_error, s.interval, lambda: s.interval(simultaneous=True)):
            with pytest.raises(ValueError, match=msg): f()
    for level in (0,1,-1,95,float('nan')):
        with pytest.raises(ValueError, match='level: expected a number between 0 and 1'): _stats().interval(level)

def _widest(e, level, draws=40_000, seed=1):
    "By numpy: how far the worst column of a multiplier bootstrap with t-like tails strays, in standard errors"
    rng = np.random.default_rng(seed); g = len(e)
    z = e/np.sqrt((e**2).sum(0))
    return np.quantile(np.abs(rng.standard_normal((draws,g))@z).max(1)*np.sqrt((g-1)/rng.chisquare(g-1,draws)), level)

@pytest.mark.parametrize('level', [.5,.95])
def test_intervals_of_all_means_at_once_agree_with_a_bootstrap_in_numpy(level):
    clips = _clips(25, f=12, seed=5); s = _of_clips(clips); m = np.concatenate(clips,1).mean(1)
    e = np.array([v.sum(1)-m*v.shape[1] for v in clips])
    lo,hi = (v.flatten().numpy() for v in s.interval(level, simultaneous=True)); k = (hi-lo)/2/_ratio_se(clips)
    assert np.ptp(k)<1e-9 and abs(k[0]/_widest(e, level)-1)<.04  # 4000 draws: 1 to 2 % of the quantile
    one = sps.t.ppf(.5+level/2,24)
    assert one*1.02<k[0]<sps.t.ppf(1-(1-level)/24,24)*1.05  # between that of one mean and Bonferroni's
    same = [np.repeat(v[:1],6,0) for v in clips]  # rows that are all the same need no more than one
    lo,hi = (v.flatten().numpy() for v in _of_clips(same).interval(level, simultaneous=True)); assert abs((hi-lo)[0]/2/_ratio_se(same)[0]/one-1)<.04

def test_simultaneous_intervals_repeat_and_touch_no_random_state(monkeypatch):
    "Not that of a GPU either, which torch.manual_seed would set"
    s,seeded = _stats(),[]
    for n in ('manual_seed','manual_seed_all'): monkeypatch.setattr(torch.cuda, n, lambda v: seeded.append(v))
    was = random.getstate(),np.random.get_state()[1].tolist(),torch.get_rng_state().tolist()
    a,b = (s.interval(simultaneous=True) for _ in range(2))
    assert all(torch.equal(p,q) for p,q in zip(a,b)) and (random.getstate(),np.random.get_state()[1].tolist(),torch.get_rng_state().tolist())==was
    assert not seeded

_levels = dict(normal=lambda rng,s: rng.normal(size=s), heavy=lambda rng,s: rng.standard_t(3,s), skewed=lambda rng,s: rng.lognormal(0,1,s)-np.exp(.5))
def _above(kind): return {'normal':sps.norm,'heavy':sps.t(3)}[kind].expect(lb=0) if kind!='skewed' else sps.lognorm(1).expect(lambda v: v-np.exp(.5), lb=np.exp(.5))

@pytest.mark.parametrize('kind,clips,groups,one,every', [('normal',12,128,.90,.82), ('normal',200,24,.915,.89), ('heavy',40,128,.915,.885), ('heavy',200,24,.915,.89), ('skewed',40,128,.87,.775)])
def test_intervals_hold_the_true_means_as_often_as_they_say(kind, clips, groups, one, every):
    """95 % intervals of 200 splits of clips whose level is normal, of Student's t with 3 degrees of freedom, or lognormal; loud clips are longer, so that a
    mean over frames is not one over clips; 8 rows, which share half of their variance. Part of 3000 splits in which intervals hold one mean, and all 8:
    normal .937 and .889 (12 clips), .950 and .940 (200 clips in 24 groups); heavy .949 and .937 (40), .953 and .944 (200); skewed .913 and .850 (40: few
    clips of a skewed level are surer than they should be). Bounds lie 3 deviations of 200 splits below. Frames in place of clips: .48 to .62"""
    rng,reps,f,t = np.random.default_rng(1),200,8,12
    true = 6*_above(kind)/(2+3+1.5)  # E[frames x level] / E[frames]: 2 to 5 frames, 6 more of a loud clip
    hit1,hit8 = 0,0
    for _ in range(reps):
        level = _levels[kind](rng, clips); n = 2+6*(level>0)+rng.integers(0,4,clips)
        x = level[:,None,None]+_levels[kind](rng,(clips,f))[:,:,None]+rng.normal(size=(clips,f,t))
        s = _stats(x[:,None], groups=groups, quantiles=False, settings=None, freqs=False, lengths=torch.from_numpy(n))
        lo,hi = s.interval(); hit1 += ((lo<true)&(true<hi)).double().mean().item()
        lo,hi = s.interval(simultaneous=True); hit8 += ((lo<true)&(true<hi)).all().item()
    assert one<hit1/reps<.985 and every<hit8/reps<.99

# --- putting together

def _weighted(parts):
    "Mean and variance by numpy of (values (clip, channel, row, frame), weight)"
    v = np.concatenate([np.moveaxis(x, (1,2), (0,1)).reshape(*x.shape[1:3],-1) for x,_ in parts], -1); w = np.concatenate([np.full(x[:,0,0].size, k) for x,k in parts])
    m = np.average(v, axis=-1, weights=w)
    return m,np.average((v-m[...,None])**2, axis=-1, weights=w),w.sum()

def _is(s, m, var, n, rtol=1e-11):
    return np.allclose(s.mean[0,...,0], m, rtol=rtol) and np.allclose(s.std[0,...,0]**2, var, rtol=10*rtol) and np.allclose(s._all()[0], n, rtol=rtol)

def _alike(a, b):
    "The same but for rounding"
    parts = lambda s: (*s._table,*(s._peak or ()),*(s._extra or ()))
    return (a.axes,a.fingerprint,a.counted,a._extra is None,a._peak is None)==(b.axes,b.fingerprint,b.counted,b._extra is None,b._peak is None) and \
        all(p.shape==q.shape and torch.allclose(p.double(), q.double(), rtol=1e-9, atol=1e-9) for p,q in zip(parts(a), parts(b)))

sizes = st.tuples(*[st.integers(1,5)]*3)
@given(sizes=sizes, groups=st.sampled_from([(8,8,8),(3,8,5),(0,8,4),(0,0,0),(20,2,20)]), c=st.integers(1,2), seed=st.integers(0,99))
@settings(max_examples=40)
def test_merging_is_associative_commutative_and_that_of_all_clips(sizes, groups, c, seed):
    xs = [_x(b,c,3,b+2,seed+i)+20*i for i,b in enumerate(sizes)]
    a,b,d = (_stats(x, g) for x,g in zip(xs, groups))
    assert _is((a+b)+d, *_weighted([(x,1) for x in xs])) and _alike((a+b)+d, a+(b+d)) and _alike(a+b, b+a)
    every = (a+b)+d
    assert every.n_clips==sum(sizes)==every.provenance['frames']['counted']-sum(b*(b+1) for b in sizes) and every.count.max()==sum(x[:,0,0].size for x in xs)
    if min(groups)>1:  # clips of a group of one join those of the same group of the other: sums of residuals, as by hand
        by = [(i,k%g) for i,g in enumerate(groups) for k in range(sizes[i])]
        clips = [v.reshape(c*3,-1) for x in xs for v in x]; k = [j for _,j in by]
        if len(set(k))>1: assert np.allclose(every.standard_error().flatten(), _ratio_se(clips, k), rtol=1e-8)

@given(w=st.floats(1e-3,1e3), v=st.floats(1e-3,1e3), half=st.floats(.5,50), seed=st.integers(0,99))
@settings(max_examples=40)
def test_weights_are_weights_of_elements(w, v, half, seed):
    x,y,z = _x(4,2,3,5,seed),_x(2,2,3,9,seed+1)+9,_x(3,2,3,2,seed+2)-9
    a,b,d = (_stats(o) for o in (x,y,z))
    assert _is(a.merge(b, w), *_weighted([(x,1),(y,w)])) and _alike(a.updated(b, weight=w), a.merge(b, w))
    assert _is(a.merge(b, w).merge(d, v), *_weighted([(x,1),(y,w),(z,v)]))
    assert _is(a.scaled(v), *_weighted([(x,v)])) and torch.allclose(a.scaled(v).mean, a.mean, rtol=1e-12) and torch.allclose(a.scaled(v).standard_error(), a.standard_error(), rtol=1e-9)
    fade = lambda k: .5**(k/half)
    assert _is(a.updated(b, half_life=half), *_weighted([(x,fade(2)),(y,1)]))
    assert _is(a.updated(b, half_life=half).updated(d, half_life=half), *_weighted([(x,fade(5)),(y,fade(3)),(z,1)]))

def test_after_its_half_life_an_old_element_counts_half():
    x,y = _x(6),_x(10, seed=1)
    assert _is(_stats(x).updated(_stats(y), half_life=10), *_weighted([(x,.5),(y,1)])) and _is(_stats(x).updated(_stats(y), half_life=5), *_weighted([(x,.25),(y,1)]))

@given(sizes=sizes, axes=st.sampled_from(['global','frequency',(0,1,2,3),(0,3)]), w=st.sampled_from([1.,.3,7.]), groups=st.sampled_from([0,2,8]), seed=st.integers(0,99))
@settings(max_examples=40)
def test_reducing_and_merging_may_change_places(sizes, axes, w, groups, seed):
    a,b = (_stats(_x(n,2,3,n+1,seed+i)+30*i, groups) for i,n in enumerate(sizes[:2]))
    assert _alike(a.merge(b, w).reduce(axes), a.reduce(axes).merge(b.reduce(axes), w))
    assert _alike(a.reduce(axes).reduce((0,1,2,3)), a.reduce((0,1,2,3))) and _alike(a.scaled(3.).reduce(axes), a.reduce(axes).scaled(3.))

@pytest.mark.parametrize('axes', ['global','frequency',(0,1,2,3),(0,3)])
def test_reduced_statistics_are_those_of_a_recorder_of_these_axes(axes):
    x = _x(c=2); rec = StatsRecorder(axes); rec.update(torch.as_tensor(x)); s = _stats(x).reduce(axes)
    assert torch.allclose(s.mean, rec.mean, rtol=1e-13) and torch.allclose(s.std, rec.std, rtol=1e-12) and torch.equal(s.count, rec.count) and s.axes==rec.red_dims
    red = tuple(d for d in (0,1,2,3) if d in rec.red_dims)
    assert np.array_equal(s.min, x.min(red, keepdims=True)) and np.array_equal(s.max, x.max(red, keepdims=True))

def test_putting_together_leaves_the_parts_as_they_were():
    a,b = _stats(),_stats(_x(5, seed=1)); was = copy.deepcopy(a),copy.deepcopy(b)
    for f in (lambda: a+b, lambda: a.merge(b,.5), lambda: a.updated(b, half_life=3), lambda: a.scaled(2.), lambda: a.reduce('global'), lambda: a.reduce((0,3))):
        f().provenance['clips'] = -1
        assert a==was[0] and b==was[1] and (a.provenance,b.provenance)==(was[0].provenance,was[1].provenance)

def test_what_may_not_merge_is_refused():
    s = _stats(_x(c=2)); counts = dict(count=5.)
    for other,msg in ((_stats(_x(c=2), settings={**S,'hop_length':2}),'hop_length: 4 in the statistics, 2 here'), (_stats(_x(c=2), settings={**S,'waveform_norm':'standard','sr':8000}),'2 settings differ'),
        (s.reduce('frequency'),'expected axes'), (s.reduce('global'),'expected axes'),
                      (_stats(_x(c=1)),'channels: 2 in the statistics, 1 here'), (_stats(_x(c=2), settings=None),'other: its fingerprint is unknown')):
        with pytest.raises(ValueError, match=msg): s.merge(other)
        with pytest.raises(ValueError, match=msg): s+other
    one = SpecStats([1.,2.], [1.,1.], 3.)
    for a,b in ((one,SpecStats([1.,2.],[1.,1.])), (SpecStats([1.,2.],[1.,1.]),one)):
        with pytest.raises(ValueError, match='without counts'): a+b
    with pytest.raises(ValueError, match='shape'): one+SpecStats([1.,2.,3.],[1.,1.,1.],3.)
    for w in (0,-1,float('inf'),float('nan')):
        for f in (lambda: s.merge(s, w), lambda: s.scaled(w), lambda: s.updated(s, weight=w)):
            with pytest.raises(ValueError, match='weight: expected a number above 0'): f()
    for kw in ({}, dict(weight=1, half_life=1)):
        with pytest.raises(ValueError, match='expected one of them'): s.updated(s, **kw)
    for h in (0,-3):
        with pytest.raises(ValueError, match='half_life: expected clips'): s.updated(s, half_life=h)
    with pytest.raises(ValueError, match='number of clips'): one.updated(one, half_life=3)
    for o in (1, None, StatsRecorder()):
        with pytest.raises(TypeError, match='expected SpecStats'): s.merge(o)
    assert (s==1) is False and s!=s.reduce('global')

def test_provenance_of_a_merge_says_what_is_known():
    a,b,c = _stats(clips_in_split=40, split='train', mask='silence'),_stats(_x(5), clips_in_split=30, split='valid', mask='silence'),_stats(_x(3))
    p = (a+b).provenance
    assert (p['clips'],p['clips_in_split'],p['split'],p['mask'],p['frames']['counted'])==(17,70,'mixed','silence',17*9) and 'from 17 of 70 clips' in repr(a+b)
    for s,n in ((c+c,6), (a+c,15), (c+a,15)):
        assert s.n_clips==n and ' of 0 clips' not in repr(s), repr(s)
        assert torch.equal(s.standard_error(finite=True), s.standard_error())  # how many there are is not known
    one = SpecStats([1.,2.], [1.,1.], 3.)
    assert (one+one).n_clips is None and 'clips' not in repr(one+one)

# --- shown

def test_repr_says_what_it_is(kind):
    r = repr(kind)
    assert r.startswith('SpecStats: mean ') and f'shape {tuple(kind.mean.shape)}' in r and ('pipeline unknown' in r)==(kind.fingerprint=='unknown') and ('median' in r)==(kind._extra is not None)
    if 'clips' in kind.provenance: assert f"from {kind.n_clips} clips" in r and f"{kind.provenance['frames']['counted']:,} frames" in r

def test_plot_draws_means_deviations_bands_and_the_global_mean(kind):
    if 2 in kind.axes:
        with pytest.raises(ValueError, match='plot: .*nothing to draw over frequency'): kind.plot()
        return
    ax = kind.plot(title='here'); lines = {l.get_label():np.asarray(l.get_ydata()) for l in ax.lines}
    n,m,m2 = (v[0].numpy() for v in kind._all())
    mean = (n*m).sum(0)/n.sum(0); std = np.sqrt((m2+n*(m-mean)**2).sum(0)/n.sum(0))  # channels merged
    assert np.allclose(lines['mean'], mean) and np.allclose(lines['mean ± std'], mean-std) and np.allclose([l.get_ydata() for l in ax.lines if l.get_linestyle()=='--'][1], mean+std)
    g, = [v for k,v in lines.items() if k.startswith('global')]
    assert np.allclose(g, (n*m).sum()/n.sum()) and ax.get_title()=='here' and ax.get_ylabel()==(kind.units or 'value')
    assert ax.get_xlim()==(0,len(mean)-1)
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert ax.get_xlabel()==('row' if kind.freqs is None else 'frequency (Hz)') and (kind.freqs is None or labels==['0','1k','2k','3k'])
    bands = {c.get_label():c.get_paths()[0].vertices for c in ax.collections}
    assert set(bands)==({'5 to 95 %','25 to 75 %'} if kind._extra is not None else set()) and ('median' in lines)==bool(bands)
    q = kind.reduce('frequency')
    for k,(lo,hi) in {'5 to 95 %':(.05,.95), '25 to 75 %':(.25,.75)}.items():
        if not bands: break
        for at in range(len(mean)):
            y = bands[k][bands[k][:,0]==at][:,1]
            assert np.isclose(y.min(), q.quantile(lo).flatten()[at]) and np.isclose(y.max(), q.quantile(hi).flatten()[at])
    if bands: assert np.allclose(lines['median'], q.quantile(.5).flatten())

def test_plot_uses_the_axis_it_is_given_and_names_mel_bands():
    import matplotlib.pyplot as plt
    _,ax = plt.subplots(); x = _mel()(_wave())
    s = _stats(x.plain()[None], settings=x.settings, freqs=False); s.freqs = x.freqs
    assert s.plot(ax) is ax and ax.get_xlabel()=='mel band (Hz)' and len(plt.get_fignums())==1
    assert 'sample_rate=16000, n_fft=256, hop_length=60, mel=True, n_mels=8, waveform_norm=none' in repr(s)

def test_constant_rows_are_named():
    x = _x(c=2); x[:,1,2] = -100.
    assert _stats(x).constant_rows()==['channel 1, row 2 (2k Hz)'] and _stats().constant_rows()==[] and SpecStats([1.,2.],[0.,1.]).constant_rows()==['row 0']
    for x in (_x(1,1,2,1), np.full((3,1,2,4),.1)):
        s = _stats(x); assert len(s.constant_rows())==2 and repr(s) and s.plot() and not s.std.isnan().any()
    assert not s.standard_error().isnan().any() and all(v.isfinite().all() for v in s.interval(simultaneous=True)) and s.interval(simultaneous=True)[0].equal(s.mean)

def test_to_ast_halves_the_std_or_leaves_it():
    "The extractor divides by twice what stands there"
    s = SpecStats(torch.tensor([1.,3.]), torch.tensor([2.,2.]), 5)
    g = s.reduce('global')
    assert s.to_ast()['std']==g.std.item()/2 and s.to_ast(half=False)==dict(mean=g.mean.item(), std=g.std.item(), do_normalize=True)
    assert abs(SpecStats.from_ast(s.to_ast(), unchecked=True).std.item()-g.std.item())<1e-12
    with pytest.raises(TypeError, match='half: expected True or False'): s.to_ast(half=.5)
