"Inputs that nobody meant: audio, tables, statistics, recipes, arguments and caches altered at random, and how the package answers each"
import contextlib,faulthandler,io,json,os,pickle,re,resource,shutil,signal,struct,sys,time,warnings,zipfile
from collections import Counter
from functools import lru_cache,reduce
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from hypothesis import HealthCheck,Phase,given,settings
from hypothesis import strategies as st

from specnorm_fastai.all import AudioCache,AudioTensor,PreprocessAudio,SpecStats,StatsRecorder,audio_info,audio_table,no_kernels,read_recipe,read_table
from specnorm_fastai.all import AudioConfig,AudioToSpec
from specnorm_fastai.compare import _arguments,_call_defaults
from specnorm_fastai.experiment import _setting_defaults,_ways

promised = (ValueError, TypeError, OSError)
class Hang(BaseException): pass
class Broken(AssertionError): "The package did not keep its promise"

# what is watched while an input is read

_code = ('pickle.find_class','os.system','os.exec','os.posix_spawn','os.spawn','subprocess.Popen','socket.connect')
_watch = dict(on=False, writes=False, seen=[])

def _hook(event, args):
    if not _watch['on']: return
    if event in _code and not (event=='pickle.find_class' and _numbas()): _watch['seen'].append(f'{event} {args[:2]}')
    elif event=='open' and not _watch['writes'] and isinstance(args[2], int) and args[2]&(os.O_WRONLY|os.O_RDWR|os.O_CREAT):
        if not any(k in str(args[0]) for k in ('__pycache__','/dev/null')): _watch['seen'].append(f'writes {args[0]}')
_hooked = []

def _numbas():
    "Is it numba that reads its own compiled kernels?"
    f = sys._getframe(1)
    while f is not None:
        if f.f_globals.get('__name__')=='numba.core.caching': return True
        f = f.f_back
    return False

def _alarm(*_): raise Hang()

@contextlib.contextmanager
def limited(more=3*2**30):
    "At most so many bytes of address space more than there are now"
    if not Path('/proc/self/statm').exists(): yield; return
    old,now = resource.getrlimit(resource.RLIMIT_AS),int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize()
    soft = now+more if old[1]==resource.RLIM_INFINITY else min(now+more, old[1])
    resource.setrlimit(resource.RLIMIT_AS, (soft,old[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_AS, old)

def tried(f, names, seconds=10, writes=False):
    "'read', or the name of the promised error that `f` raised; `Broken` for any other end: another error, one that names nothing, a hang, code that ran, a file that was written"
    if not _hooked: sys.addaudithook(_hook); _hooked.append(1)  # hooks cannot be taken away
    was = signal.signal(signal.SIGALRM, _alarm)
    faulthandler.dump_traceback_later(6*seconds, exit=True, file=sys.__stderr__)  # where C code hangs
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _watch.update(on=True, writes=writes, seen=[])
    try:
        with limited(),warnings.catch_warnings():
            warnings.simplefilter('ignore')
            f()
        end = 'read'
    except Hang: raise Broken(f'no answer in {seconds} s') from None
    except Broken: raise
    except promised as e:
        if not any(n and n in str(e) for n in names): raise Broken(f'{type(e).__name__} names neither file nor parameter: {e}') from e
        end = next(t.__name__ for t in promised if isinstance(e, t))
    except Exception as e: raise Broken(f'{type(e).__name__}: {e}') from e
    finally:
        _watch['on'] = False
        signal.setitimer(signal.ITIMER_REAL, 0); signal.signal(signal.SIGALRM, was); faulthandler.cancel_dump_traceback_later()
    if _watch['seen']: raise Broken(f"it did what reading does not need: {_watch['seen'][:3]}")
    return end

# bytes altered at random

_words = [0,1,2,3,127,128,255,256,0x7fff,0x8000,0xffff,0xfffe,0x7fffffff,0x80000000,0xffffffff,0xfffffffe,44100,2**40,2**63-1,2**63,2**64-1]

@st.composite
def mangled(draw, bases, head=80):
    "One of some files, altered in one to four places"
    names = list(bases())
    b = bytearray(bases()[draw(st.sampled_from(names))])
    for kind in draw(st.lists(st.sampled_from(('flip','flip','word','word','cut','drop','put','splice','fill','swap')), min_size=1, max_size=4)):
        n = len(b)
        if not n: break
        at = draw(st.integers(0, min(head, n)-1) | st.integers(0, n-1))
        if kind=='flip': b[at] ^= 1<<draw(st.integers(0,7))
        elif kind=='word':
            size = draw(st.sampled_from((2,4,8)))
            b[at:at+size] = (draw(st.sampled_from(_words))&(256**size-1)).to_bytes(size, draw(st.sampled_from(('little','big'))))
        elif kind=='cut': del b[at:]
        elif kind=='drop': del b[at:at+draw(st.integers(1,200))]
        elif kind=='put': b[at:at] = draw(st.binary(min_size=1, max_size=40))
        elif kind=='splice':
            o = bases()[draw(st.sampled_from(names))]
            b[at:] = o[draw(st.integers(0, len(o))):]
        elif kind=='fill': b[at:at+draw(st.integers(1,600))] = bytes([draw(st.sampled_from((0,255,0x5b,0x7b)))])*draw(st.integers(1,600))
        else: k = draw(st.integers(0, n-1)); b[at],b[k] = b[k],b[at]
    return bytes(b)

def _junk(): return st.binary(max_size=300) | st.just(b'')

# audio

@lru_cache(maxsize=None)
def audio_files():
    "Short clips in the formats that are read"
    x,res = np.random.default_rng(0).uniform(-.5, .5, (900,2)),{}
    for fmt,sub in (('WAV','PCM_16'),('WAV','PCM_24'),('WAV','PCM_32'),('WAV','FLOAT'),('WAV','DOUBLE'),('WAV','ULAW'),('WAV','IMA_ADPCM'),('WAVEX','PCM_16'),('RF64','PCM_16'),('W64','PCM_16'),
                    ('FLAC','PCM_16'),('FLAC','PCM_24'),('OGG','VORBIS'),('OGG','OPUS'),('MP3','MPEG_LAYER_III'),('AIFF','PCM_16'),('AU','PCM_16'),('CAF','PCM_16')):
        f = io.BytesIO()
        try: sf.write(f, x, 16000, subtype=sub, format=fmt)
        except (sf.SoundFileError,ValueError): continue  # an older libsndfile
        res[f'{fmt} {sub}'] = f.getvalue()
    return res

@lru_cache(maxsize=None)
def liars():
    "Files whose headers promise far more than there is, or a rate that makes far more of it"
    res = {}
    for k in (10**9,2**31,2**36-1):
        b = bytearray(audio_files()['FLAC PCM_16']); b[21] = b[21]&0xf0|k>>32; b[22:26] = struct.pack('>I', k&0xffffffff)
        res[f'flac of {k} samples'] = bytes(b),'.flac'
    if 'MP3 MPEG_LAYER_III' in audio_files():
        b = bytearray(audio_files()['MP3 MPEG_LAYER_III']); i = max(b.find(b'Info'), b.find(b'Xing')); b[i+8:i+12] = b'\x7f\xff\xff\xff'
        res['mp3 of many frames'] = bytes(b),'.mp3'
    f = io.BytesIO(); sf.write(f, np.zeros(400000), 1, format='WAV', subtype='PCM_16')
    res['wav at 1 Hz'] = f.getvalue(),'.wav'
    return res

_suffixes = ('.wav','.WAV','.flac','.ogg','.mp3','.aiff','.au','.opus','.raw','.txt','','.w64','.caf','.rf64','.safetensors')

def _audio(x, folder):
    b,suffix,how = x
    f = folder/f'clip{suffix}'
    f.write_bytes(b)
    def read():
        if how=='info':
            n,sr,ch = audio_info(f)
            if not (n>0 and sr>0 and ch>0): raise Broken(f'audio_info gave {(n,sr,ch)}')
            return
        y = PreprocessAudio()(f) if how=='block' else AudioTensor.create(f)
        if y.ndim!=2 or not y.numel() or y.dtype!=torch.float32 or not y.sr>0 or not torch.isfinite(y).all(): raise Broken(f'read as {y!r}')
        if how=='block' and (y.sr!=16000 or y.shape[0]!=1): raise Broken(f'opened as {y!r}')
    return tried(read, [f.name])

def _audio_inputs(): return st.tuples(mangled(audio_files) | _junk() | mangled(audio_files), st.sampled_from(_suffixes), st.sampled_from(('file','block','info')))

# tables

_cells = ['a.wav','b.wav','c.wav','d.wav','sub/e.wav','../outside.wav','/etc/passwd','link.wav','loop.wav','dir.wav','','  ','a.wav ','a\0.wav','A.WAV','.','..','~','ä.wav','\ud7ff','"','\'',',',';',
    'x'*300+'.wav','1','2','01','1.0','nan','NA','None','inf','dog','cat','true','false','=1+1','\t','a.wav,1']
_names = ['filename','filename','filename','fold','category','label','target','path','src_file','test','','index','Unnamed: 0','filename ','FILENAME']

def _table_inputs():
    cell = st.sampled_from(_cells) | st.text(max_size=4)
    csv = st.tuples(st.lists(st.sampled_from(_names), min_size=1, max_size=5), st.lists(st.lists(cell, max_size=6), max_size=6), st.sampled_from((',',',',',',';','\t')),
        st.sampled_from(('utf-8','utf-8','utf-8-sig','latin-1','utf-16')), st.sampled_from(('\n','\r\n','\r')), st.booleans()).map(_csv)
    good = st.just(b'filename,fold,category\na.wav,1,dog\nb.wav,2,cat\nc.wav,1,cat\nd.wav,2,dog\n')
    rows = st.lists(st.tuples(st.sampled_from(('a.wav','b.wav','c.wav','d.wav',*_cells)), st.sampled_from(('1','2','','x','01')), st.sampled_from(('dog','cat','','true'))), min_size=1, max_size=6)
    near = rows.map(lambda r: ('filename,fold,category\n'+''.join(f'{a},{b},{c}\n' for a,b,c in r)).encode('utf-8', 'replace'))
    return st.tuples(csv | near | near | good.flatmap(lambda b: mangled(lambda: {'csv':b})) | _junk(), st.sampled_from(('files','table','label','test','two','fold')))

def _csv(x):
    names,rows,sep,enc,end,quoted = x
    q = lambda s: '"'+s.replace('"','""')+'"' if quoted else s
    return end.join(sep.join(q(c) for c in r) for r in [names,*rows]).encode(enc, 'replace')

@lru_cache(maxsize=None)
def _table_home(folder):
    "A data set with links that lead elsewhere"
    d = folder/'set'
    (d/'audio'/'sub').mkdir(parents=True); (d/'meta').mkdir(); (d/'audio'/'dir.wav').mkdir()
    for n in ('audio/a.wav','audio/b.wav','audio/c.wav','audio/d.wav','audio/sub/e.wav','outside.wav'): sf.write(d/n, np.zeros(50)+.1, 16000)
    (d/'audio'/'link.wav').symlink_to(d/'outside.wav'); (d/'audio'/'loop.wav').symlink_to(d/'audio'/'loop.wav')
    return d

def _table(x, folder):
    b,how = x
    d = _table_home(folder)
    for f in (d/'meta').iterdir(): f.unlink()
    (d/'meta'/'table.csv').write_bytes(b)
    if how=='two': (d/'meta'/'more.csv').write_bytes(b)
    def read():
        if how=='files': df = audio_table(d)
        else: df = read_table(d, **{'label':dict(label_col='category'), 'test':dict(test_col='test'), 'fold':dict(fold_col='label')}.get(how, {}))
        root = (d/'audio').resolve()
        if not len(df) or not all(Path(p).resolve().is_relative_to(root) and Path(p).exists() for p in df.path): raise Broken(f'read {df.path.tolist()}')
        if how!='files' and df.label.nunique()<2: raise Broken('fewer than two classes')
    return tried(read, ['table.csv','meta','fold_col','label_col','test_col','data:'])

# statistics

@lru_cache(maxsize=None)
def stats_files():
    "Statistics files of all formats that are read"
    import tempfile
    rec = StatsRecorder('frequency', quantiles=True)
    a2s = AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(n_fft=16, hop_length=8))
    with keep(): rec.update(a2s(AudioTensor(torch.rand(3,1,200, generator=torch.Generator().manual_seed(0))-.5, sr=16000)))
    s,res = SpecStats.from_recorder(rec),{}
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        for n,save in (('a.safetensors',s.save),('a.json',s.save),('a.npz',s.to_npz),('a.ark',s.to_kaldi),('t.ark',lambda p: s.to_kaldi(p, binary=False))): save(d/n); res[n] = (d/n).read_bytes()
    res['preprocessor_config.json'] = json.dumps(dict(mean=-4.2, std=4.5, do_normalize=True)).encode()
    return res

@contextlib.contextmanager
def keep():
    state = torch.get_rng_state()
    try: yield
    finally: torch.set_rng_state(state)

class Boom:
    "What leaves a file behind where it is unpickled"
    def __init__(self, path): self.path = path
    def __reduce__(self): return (Path.touch, (Path(self.path),))

@lru_cache(maxsize=None)
def disguised(marker):
    "Pickles, bombs and monsters under innocent names"
    res,boom = {},Boom(marker)
    for k in (0,2,5): res[f'pickle {k}'] = pickle.dumps(boom, k)
    f = io.BytesIO(); torch.save({'mean':boom}, f); res['torch.save'] = f.getvalue()
    objects = np.array([boom], dtype=object)
    f = io.BytesIO(); np.savez(f, mean=objects, std=objects, count=objects); res['npz of objects'] = f.getvalue()
    f = io.BytesIO(); np.save(f, objects); res['npy of objects'] = f.getvalue()
    def npy(shape, n=0, descr='<f8'):
        h = repr({'descr':descr, 'fortran_order':False, 'shape':shape}).encode(); h += b' '*(63-(10+len(h))%64)+b'\n'
        return b'\x93NUMPY\x01\x00'+struct.pack('<H', len(h))+h+bytes(n)
    def npz(**files):
        f = io.BytesIO()
        with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as z:
            for k,v in files.items(): z.writestr(f'{k}.npy', v)
        return f.getvalue()
    res['npz of a huge shape'] = npz(mean=npy((10**12,)), std=npy((10**12,)))
    res['npz of a negative shape'] = npz(mean=npy((-1,)), std=npy((-1,)))
    big = npy((2**28//8,), 2**28)
    res['npz bomb'] = npz(mean=big, std=big)
    res['npz of fields'] = npz(mean=npy((3,), 24, [('a','<f8')]), std=npy((3,), 24))
    res['npz of text'] = npz(mean=npy((1,), 8, '<U2'), std=npy((1,), 8, '<U2'))
    res['npz of complex'] = npz(mean=npy((1,), 16, '<c16'), std=npy((1,), 16, '<c16'))
    res['npz with paths'] = npz(**{'../../mean':npy((1,), 8), 'mean':npy((1,), 8), 'std':npy((1,), 8)})
    def tensors(header, data=b''): h = header if isinstance(header, bytes) else json.dumps(header).encode(); return struct.pack('<Q', len(h))+h+data
    res['safetensors of a huge header'] = struct.pack('<Q', 2**62)+b'{}'
    res['safetensors of a huge shape'] = tensors({'mean':dict(dtype='F64', shape=[2**40,2**20], data_offsets=[0,8])}, bytes(8))
    res['safetensors over itself'] = tensors({k:dict(dtype='F64', shape=[1], data_offsets=[0,8]) for k in ('mean','count','m2')}, bytes(8))
    res['safetensors of deep metadata'] = tensors({'__metadata__':{'header':'['*100000+']'*100000}})
    res['safetensors of a number as metadata'] = tensors({'__metadata__':{'header':'3'}})
    res['deep json'] = b'['*200000
    res['deep json object'] = b'{"arrays":'*100000
    res['json of a huge shape'] = json.dumps(dict(format='specnorm_fastai.SpecStats', version=1, arrays={k:dict(shape=[10**15], dtype='float64', data=[1.]) for k in ('mean','count','m2')})).encode()
    res['json of huge numbers'] = json.dumps(dict(format='specnorm_fastai.SpecStats', version=1, arrays=dict(mean=dict(shape=[1], dtype='int64', data=[10**400])))).encode()
    res['json of NaN'] = b'{"format":"specnorm_fastai.SpecStats","arrays":{"mean":{"shape":[1],"dtype":"float64","data":[NaN]}}}'
    res['json of many digits'] = b'{"arrays":{"mean":{"shape":[1],"dtype":"float64","data":['+b'9'*10000+b']}}}'
    res['surrogates'] = b'{"arrays":{"\\ud800":{}},"format":"\\ud800"}'
    res['kaldi of a huge size'] = b'k \0BDM \4\xff\xff\xff\x7f\4\xff\xff\xff\x7f'
    res['kaldi of a negative size'] = b'k \0BDM \4\xff\xff\xff\xff\4\xff\xff\xff\xff'
    res['config of a list'] = b'[1,2]'
    res['config of NaN'] = b'{"mean":NaN,"std":1}'
    res['config of a huge number'] = b'{"mean":1'+b'0'*400+b',"std":1}'
    return res

_readers = {'.safetensors':SpecStats.load, '.json':SpecStats.load, '.npz':lambda p: SpecStats.from_npz(p, unchecked=True), '.ark':lambda p: SpecStats.from_kaldi(p, unchecked=True),
            '.config.json':lambda p: SpecStats.from_ast(p, unchecked=True), '.pkl':SpecStats.load, '':SpecStats.load}

def _stats_inputs():
    return st.tuples(mangled(stats_files, 300) | mangled(stats_files, 300) | st.sampled_from(sorted(disguised('x'))) | _junk(), st.sampled_from(('as it is','as it is',*_readers)))

def _stats(x, folder):
    b,suffix = x
    marker = folder/'ran'
    if isinstance(b, str): b = disguised(str(marker))[b]
    if suffix=='as it is':
        h = b[:60]
        suffix = '.npz' if h[:2]==b'PK' else '.json' if h[:1] in b'{[' and b'"mean":' not in h else '.config.json' if h[:1]==b'{' else '.ark' if h[:6]==b'global' or h[:2]==b'k ' else '.safetensors'
    f = folder/f'stats{suffix}'
    f.write_bytes(b)
    def read():
        s = _readers[suffix](f)
        if not all(torch.isfinite(v).all() for v in s._table) or (s._table[2]<0).any(): raise Broken(f'read {s!r}')
    res = tried(read, [f.name])
    if marker.exists(): marker.unlink(); raise Broken('code in the file ran')
    return res

# recipes

_odd = st.sampled_from([None,True,False,0,1,-1,2,3,10**6,10**30,-.5,.5,1e-300,1e300,float('nan'),float('inf'),'','x','none','global','mel','spec','small','all','test','pcen+global','+','global+','ä','x'*200,[],['none'],['none','none'],
    ['x'],[[]],[1,2],[None],{},{'a':1},{'kind':'mel'},{'kind':[]},{'kind':'mel','n_mels':-3},{'n_fft':10**12},{'global':{'use':'x'}},{'global':{'use':3}},{'global':3},{'width':0},{'width':10**7},{'freq':-1},{'freq':'x'},{'freq':1e9,'time':None}])

def _recipe_inputs():
    keys = st.sampled_from([*_call_defaults,*_setting_defaults,'data','out','recipe','x','','__class__','self','log'])
    opts = st.dictionaries(st.sampled_from(list(_ways)+['x']), st.dictionaries(st.sampled_from(('use','axes','std','bands','top_db','ref','seconds','alpha','start','per','x','center','gain')), _odd, max_size=3), max_size=2)
    rec = st.dictionaries(keys, _odd, max_size=4) | st.fixed_dictionaries({'way_options':opts, 'ways':st.lists(st.sampled_from([*_ways,'pcen+global','x','global+item']), max_size=3)})
    deep = st.sampled_from(['{"lr":'+'['*100000, '{"a":'*100000, 'a = '+'['*5000, 'a.'*3000+'b = 1', '[[a]]\n'*10+'[a]', 'lr = 1\nlr = 2', '{"lr":1,"lr":2}', '3', '"x"', 'null', '[]', 'lr = '+'9'*5000, '{"lr":'+'9'*5000+'}', 'lr = 1e400', 'x = 2020-01-01', 'ways = 2020-01-01T00:00:00'])
    text = rec.map(_as_text) | rec.map(_as_toml)
    raw = text.map(lambda s: s.encode('utf-8', 'replace'))
    return st.tuples(raw | raw | raw.flatmap(lambda b: mangled(lambda: {'r':b or b'{}'})) | deep.map(str.encode) | _junk(), st.sampled_from(('.json','.toml','.json','.toml','.yaml','.TOML','')))

def _as_text(d): return json.dumps(d)
def _as_toml(d):
    def v(o):
        if o is None: return '""'
        if isinstance(o, bool): return str(o).lower()
        if isinstance(o, str): return json.dumps(o)
        if isinstance(o, list): return '['+', '.join(map(v, o))+']'
        if isinstance(o, dict): return '{'+', '.join(f'{json.dumps(k)} = {v(x)}' for k,x in o.items())+'}'
        return repr(o)
    return '\n'.join(f'{json.dumps(k)} = {v(o)}' for k,o in d.items())

def _recipe(x, folder):
    b,suffix = x
    if b.lstrip()[:1]==b'{' and suffix=='.toml' and len(b)>20: suffix = '.json'  # else hardly any is read
    elif b.lstrip()[:1] not in (b'{',b'[') and suffix=='.json': suffix = '.toml'
    f = folder/f'recipe{suffix}'
    f.write_bytes(b)
    def read():
        read_recipe(f)
        call,s = _arguments(dict(recipe=f), False)
        json.dumps([call,s], allow_nan=False)  # all of it can be kept
    return tried(read, [f.name, *(f'{k}:' for k in (*_call_defaults,*_setting_defaults)), 'fold ', 'way_options', 'features', 'specaugment', 'name '], 20)

# command lines

def _commands():
    from configparser import ConfigParser
    cfg = ConfigParser(delimiters=['='], interpolation=None); cfg.read(Path(__file__).parents[1]/'settings.ini')
    return dict(l.strip().split('=') for l in cfg['DEFAULT']['console_scripts'].splitlines() if l.strip())

@lru_cache(maxsize=None)
def _options(entry):
    "The options that a command's help names"
    from importlib import import_module
    m,f = entry.split(':')
    f,out = getattr(import_module(m), f),io.StringIO()
    with contextlib.redirect_stdout(out),contextlib.suppress(SystemExit): f(['--help'])
    return f,sorted(set(re.findall(r'--[a-z][a-z-]+', out.getvalue()))-{'--help'})

_data = {'specnorm-compare':lambda d: ['--data',d], 'specnorm-stats':lambda d: [d], 'specnorm-drift':lambda d: ['no.safetensors',d], 'specnorm-predict':lambda d: ['no_model',d]}  # what comes last, so that nothing can succeed
_values = ['','-1','0','1','2','3.5','1e999','nan','inf','x','all','ä','\udcff','a b','--','-','--x','%s','{}','x'*3000,'/dev/null','/dev/full','/proc/nope/x','..','.','a.json','a.safetensors','no/such/a.json','bad','dir','none','global','mel','spec','raise','skip','@x','\n','fold']

def _command_inputs():
    names = [n for n in _commands() if n in _data]
    def of(name):
        opts = _options(_commands()[name])[1]
        part = st.tuples(st.sampled_from(opts), st.lists(st.sampled_from(_values), max_size=2)).map(lambda p: [p[0],*p[1]]) | st.sampled_from(_values).map(lambda v: [v]) | st.sampled_from(opts).map(lambda o: [o[:5]])
        return st.tuples(st.just(name), st.lists(part, max_size=4).map(lambda ps: sum(ps, [])), st.sampled_from(('bad','missing','empty','file','\udcff','')))
    return st.sampled_from(names).flatmap(of)

@lru_cache(maxsize=None)
def _command_home(folder):
    d = folder/'a'/'b'/'home'
    (d/'dir').mkdir(parents=True); (d/'empty').mkdir()
    for n in ('bad/audio','bad/meta'): (d/n).mkdir(parents=True)
    for k in range(4): sf.write(d/'bad'/'audio'/f'{k}.wav', np.zeros(500), 16000)
    b = (d/'bad'/'audio'/'2.wav').read_bytes(); (d/'bad'/'audio'/'2.wav').write_bytes(b[:300])
    (d/'bad'/'meta'/'t.csv').write_text('filename,fold,category\n'+''.join(f'{k}.wav,{k%2+1},{"ab"[k//2]}\n' for k in range(4)))
    (d/'file').write_text('x')
    return d

def _command(x, folder):
    name,args,data = x
    d = _command_home(folder)
    f,_ = _options(_commands()[name])
    tree = lambda: {p for p in folder.rglob('*') if p.is_file() and p.name!='.lock'}
    before,was = tree(),os.getcwd()
    out,err = (io.TextIOWrapper(io.BytesIO(), 'utf-8', errors=e) for e in ('strict','backslashreplace'))
    ends = []
    def call():
        try: ends.append(f([*args,*_data[name](data)]))
        except SystemExit as e: ends.append(e.code)
    os.chdir(d)
    try:
        with contextlib.redirect_stdout(out),contextlib.redirect_stderr(err): tried(call, [], 20, writes=True)
    finally: os.chdir(was)
    out.flush(); err.flush()
    said,wrong = out.buffer.getvalue().decode(),err.buffer.getvalue().decode()
    rc = ends[0]
    if rc==0 and 'usage:' in said: return 'help'
    if rc not in (1,2): raise Broken(f'status {rc}: {said[-300:]} {wrong[-300:]}')
    if 'Traceback' in wrong or not re.search(rf'{name}: error: .', wrong) or re.search(r'error: [A-Z]\w+(Error|Exception|Exit)\b', wrong): raise Broken(f'status {rc}: {wrong[-600:]}')
    if new:=tree()-before:
        for p in new: p.unlink()
        raise Broken(f'left behind: {sorted(map(str, new))}')
    return f'status {rc}'

# models

@lru_cache(maxsize=None)
def model_files():
    "The files of a saved model"
    import tempfile
    from specnorm_fastai.frontend import SpecFrontend
    from specnorm_fastai.learner import spec_model
    from specnorm_fastai.share import SpecModel
    with tempfile.TemporaryDirectory() as d,keep():
        f = Path(d)/'a.safetensors'; f.write_bytes(stats_files()['a.safetensors'])
        stats = SpecStats.load(f)
        front = SpecFrontend(AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(n_fft=16, hop_length=8)), 16000, stats, axes='frequency', clip_samples=400)
        SpecModel(front, spec_model('small', 3, width=4), ['a','b','c'], stats=stats).save(Path(d)/'model')
        return {p.name:p.read_bytes() for p in sorted((Path(d)/'model').iterdir())}

def _places(o, at=()):
    "Paths to all values of a JSON document"
    for k,v in o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else ():
        yield (*at,k)
        yield from _places(v, (*at,k))

def _model_inputs():
    edits = st.lists(st.tuples(st.integers(0, 10**6), _odd | st.just('gone')), min_size=1, max_size=3)
    return edits | st.tuples(st.sampled_from(('model.safetensors','stats.safetensors','preprocess.json')), mangled(model_files, 300) | st.sampled_from(sorted(disguised('x'))) | _junk())

def _model(x, folder):
    from specnorm_fastai.share import _own_sha,load_spec_model
    d,marker,files = folder/'model',folder/'ran',dict(model_files())
    if isinstance(x, list):
        o = json.loads(files['preprocess.json'])
        for i,v in x:
            ps = list(_places(o))
            if not ps: break
            *at,k = ps[i%len(ps)]
            inner = reduce(lambda c,a: c[a], at, o)
            if v=='gone': del inner[k]
            else: inner[k] = json.loads(json.dumps(v))  # a copy, which later edits may change
        if isinstance(o, dict): o['sha256'] = _own_sha(o)  # as one would who means it
        files['preprocess.json'] = json.dumps(o).encode()
    else: files[x[0]] = disguised(str(marker))[x[1]] if isinstance(x[1], str) else x[1]
    shutil.rmtree(d, ignore_errors=True); d.mkdir()
    for n,b in files.items(): (d/n).write_bytes(b)
    noise = np.random.default_rng(0).uniform(-.5, .5, 700)
    def read():
        with no_kernels(): p = load_spec_model(d).predict(noise, 16000).probabilities  # numba keeps its kernels in pickles of its own
        if not torch.isfinite(p).all(): raise Broken(f'probabilities {p}')
    res = tried(read, [*model_files(),str(d),'x:','model:'])
    if marker.exists(): marker.unlink(); raise Broken('code in the file ran')
    return res

# caches

@lru_cache(maxsize=None)
def _cache_home(folder):
    "Clips, what is read from them, and the bytes of a whole cache"
    d = folder/'clips'; d.mkdir()
    fs = [d/f'{k}.wav' for k in range(6)]
    for k,f in enumerate(fs): sf.write(f, np.random.default_rng(k).uniform(-.5, .5, 400+300*k), 16000)
    while any(time.time()-f.stat().st_ctime<.2 for f in fs): time.sleep(.05)
    c = AudioCache(folder/'whole', max_bytes=2**22)
    c.fill(fs, progress=False); c.close()
    return fs,[AudioTensor.create(f).plain().clone() for f in fs],(folder/'whole'/'data.mdb').read_bytes()

@st.composite
def _pages(draw, size=16):
    "Places in the pages of a data base file, and what is put there"
    res = []
    for _ in range(draw(st.integers(1,5))):
        at = draw(st.integers(0, size-1))*4096+draw(st.integers(0,63) | st.integers(0,200) | st.integers(0,4095))
        res.append((at, draw(st.sampled_from([(v&(256**n-1)).to_bytes(n, 'little') for v in _words for n in (1,2,4,8)]) | st.binary(min_size=1, max_size=16))))
    return res

def _cache_inputs(): return st.tuples(_pages() | st.integers(0,70000) | st.binary(max_size=200) | _pages(), st.booleans())

def _cache(x, folder):
    edits,lock = x
    fs,want,b = _cache_home(folder)
    if isinstance(edits, int): b = b[:edits]
    elif isinstance(edits, bytes): b = edits
    else:
        b = bytearray(b)
        for at,v in edits:
            if at<len(b): b[at:at+len(v)] = v[:len(b)-at]
    d = folder/'cache'
    shutil.rmtree(d, ignore_errors=True); d.mkdir()
    (d/'data.mdb').write_bytes(b)
    if lock: (d/'lock.mdb').write_bytes(bytes(b[:500]))
    def read():
        c = AudioCache(d, max_bytes=2**22)
        for f,w in zip(fs, want):
            if not torch.equal(c.open(f).plain(), w): raise Broken(f'{f.name}: other samples')
        c.flush(); c.check(); c.close()
    return apart(lambda: tried(read, [str(d)], writes=True), 40)

def apart(f, seconds):
    "What `f` gives in a process of its own; `Broken` where that crashes or hangs"
    r,w = os.pipe()
    if not (pid:=os.fork()):
        code = 1
        try:
            os.close(r)
            try: said = ['ok',f()]
            except BaseException as e: said = ['broken',f'{type(e).__name__}: {e}']
            os.write(w, json.dumps(said).encode()[:60000]); code = 0
        finally: os._exit(code)
    os.close(w)
    end,b = time.monotonic()+seconds,b''
    try:
        import select
        while True:
            if not select.select([r], [], [], max(0, end-time.monotonic()))[0]: os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0); raise Broken(f'no answer in {seconds} s')
            if not (got:=os.read(r, 65536)): break
            b += got
    finally: os.close(r)
    _,status = os.waitpid(pid, 0)
    if status or not b: raise Broken(f'the process ended with {signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else status}')
    kind,said = json.loads(b)
    if kind=='broken': raise Broken(said)
    return said

targets = {'audio files':(_audio_inputs,_audio), 'tables':(_table_inputs,_table), 'statistics files':(_stats_inputs,_stats), 'recipes':(_recipe_inputs,_recipe),
           'command lines':(_command_inputs,_command), 'model folders':(_model_inputs,_model), 'audio caches':(_cache_inputs,_cache)}

def fuzz(what, folder, n=60, random=False):
    "Try `n` inputs; how they ended. The first that breaks a promise is made as small as can be, and raised"
    inputs,run = targets[what]
    ends = Counter()
    @settings(max_examples=n, derandomize=not random, database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate,Phase.shrink), print_blob=False)
    @given(inputs())
    def one(x): ends[run(x, Path(folder))] += 1
    one()
    return ends
