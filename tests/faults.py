"What goes wrong around the package: a full disk, a folder that cannot be written, processes killed at any moment, workers that die, too little memory, two processes at one place"
import contextlib,json,multiprocessing,os,random,resource,shutil,signal,subprocess,time,warnings
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
if __name__!='__main__' and multiprocessing.current_process().name!='MainProcess': torch.set_num_threads(1)

from fastai.data.core import Datasets,TfmdDL
from specnorm_fastai.all import (AudioCache,AudioConfig,AudioTensor,AudioToSpec,SpecFrontend,SpecModel,SpecStats,StatsRecorder,audio_info,collect_stats,compare,
                                 load_spec_model,preprocess_audio_folder,small_cnn,synthetic_audio)
from specnorm_fastai.data import AudioDL

ctx = multiprocessing.get_context('forkserver')
ctx.set_forkserver_preload(['specnorm_fastai.all','faults'])  # imported once; every process is a fork of that one, and has no threads that are in the midst of something

class Broken(AssertionError): "The package did not keep its promise"

def _begin(conn, f, args):
    torch.set_num_threads(1); warnings.simplefilter('ignore')
    multiprocessing.set_start_method('fork', force=True)  # what Linux has, for workers of this process
    conn.send('began')
    try: f(*args); conn.send(('done',None,None))
    except Exception as e: conn.send(('error',[t.__name__ for t in type(e).__mro__],str(e)))

def start(f, *args):
    "A process that runs `f`, and where it tells how it ended; it has begun"
    here,there = ctx.Pipe(False)
    p = ctx.Process(target=_begin, args=(there,f,args)); p.start(); there.close()
    if not here.poll(180) or here.recv()!='began': p.kill(); raise RuntimeError('no process')
    return p,here

def ended(p, conn, seconds=120):
    "How it ended: ('done', None, None), ('error', types, message); `Broken` where it hangs or crashes"
    try:
        if not conn.poll(seconds): raise Broken(f'no answer in {seconds} s')
        return conn.recv()
    except EOFError: p.join(30); raise Broken(f'the process ended with status {p.exitcode}') from None
    finally: p.join(30); p.kill() if p.is_alive() else None

def outcome(f, *args, seconds=120): return ended(*start(f, *args), seconds)

def killed(f, *args, most):
    "Kill a process at a random moment; True where it had not ended"
    p,conn = start(f, *args)
    time.sleep(random.uniform(0, most))
    p.kill(); p.join(60)
    if p.exitcode not in (0,-signal.SIGKILL): raise Broken(f'exit code {p.exitcode}')
    return p.exitcode!=0

def _need(ok, what):
    if not ok: raise Broken(what)

def takes(f, *args):
    "Seconds of one call that is left alone"
    p = start(f, *args); t = time.monotonic()
    end = ended(*p); _need(end[0]=='done', f'{end}')
    return time.monotonic()-t

class Rounds:
    "Kill within the time that a call takes, until `rounds` calls were killed before their end; the window shrinks where one was over"
    def __init__(self, rounds, most): self.rounds,self.most,self.n = rounds,most,0
    def __iter__(self):
        for k in range(8+4*self.rounds):
            if self.n>=self.rounds: return
            yield k
        _need(self.n>=self.rounds, f'{self.n} of {k+1} calls were killed before their end, within {self.most:.3g} s')
    def kill(self, f, *args):
        if killed(f, *args, most=self.most): self.n += 1
        else: self.most *= .75

def clips(folder, n=12, sr=22050):
    folder.mkdir(exist_ok=True)
    for k in range(n): sf.write(folder/f'{k}.wav', np.random.default_rng(k).uniform(-.5, .5, (3000+501*k,2)), sr)
    return folder

def _some_stats(seed=0, n_fft=64):
    rec = StatsRecorder('frequency', quantiles=True)
    g = torch.Generator().manual_seed(seed)
    rec.update(AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(n_fft=n_fft, hop_length=n_fft//2))(AudioTensor(torch.rand(3,1,20*n_fft, generator=g)-.5, sr=16000)))
    return SpecStats.from_recorder(rec)

def _whole(f):
    "A few facts of a file, which only a whole one has"
    n = f.name
    if n.endswith(('.safetensors','.json')): return len(SpecStats.load(f).freqs)
    if n.endswith('.npz'): return len(SpecStats.from_npz(f, unchecked=True).mean)
    if n.endswith('.ark'): return len(SpecStats.from_kaldi(f, unchecked=True).mean)
    if n.endswith('.onnx'): import onnx; m = onnx.load(f); onnx.checker.check_model(m); return len(m.graph.node)
    return audio_info(f)

# what writes

def save_stats(to): _some_stats().save(to/'stats.safetensors')
def save_json(to): _some_stats().save(to/'stats.json')
def save_npz(to): _many_rows().to_npz(to/'stats.npz')
def save_kaldi(to): _many_rows().to_kaldi(to/'stats.ark')
def save_wav(to): _noise().save(to/'clip.wav')
def save_flac(to): _noise().save(to/'clip.flac')
def save_ogg(to): _noise().save(to/'clip.ogg')
def save_onnx(to): _front().to_onnx(to/'front.onnx')
def preprocess(to): preprocess_audio_folder(to.parent/'clips', output_dir=to/'made', progress=False)
def experiment(to): compare(to.parent/'set', to/'out', ways=['none','global'], epochs=1, runs=1, duration=.2, arch='small', bs=8, log=_quiet)
writers = dict(save_stats='stats.safetensors', save_json='stats.json', save_npz='stats.npz', save_kaldi='stats.ark', save_wav='clip.wav', save_flac='clip.flac', save_ogg='clip.ogg', save_onnx='front.onnx', preprocess='made', experiment='out')

def _noise(): return AudioTensor(torch.rand(2,60000, generator=torch.Generator().manual_seed(0))-.5, sr=16000)
def _many_rows(): return SpecStats(np.zeros(4096), np.ones(4096), np.full(4096, 9.))
def _front(): return SpecFrontend(AudioConfig.BasicMelSpectrogram(n_fft=256, hop_length=128, n_mels=16), 16000)
def _quiet(s): pass

@contextlib.contextmanager
def small_disk(at, size=16384):
    "A disk of a few pages, where it can be made; what is above the limit of a file's size elsewhere"
    at.mkdir()
    if os.getuid()==0 and subprocess.run(['mount','-t','tmpfs','-o',f'size={size}','tmpfs',at], capture_output=True).returncode==0:
        try: yield None
        finally: subprocess.run(['umount','-l',at], check=True)
    else: yield size

def _limited(name, to, size):
    if size: signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (size,size))
    globals()[name](to)

def _refused(end, name, to):
    kind,types,msg = end
    _need(kind=='error', f'{name}: no error')
    _need({'OSError','ValueError'}&set(types) and any(n in msg for n in (writers[name],str(to))), f'{name}: {types[0]}: {msg}')
    _need(not [p for p in to.rglob('.specnorm-*')], f'{name}: a temporary file is left')

def full_disk(folder, name):
    "The error is of the operating system and names the file; no part of one is left"
    clips(folder/'clips', 3); _set(folder)
    with small_disk(folder/'disk') as size:
        to = folder/'disk'
        _refused(outcome(_limited, name, to, size), name, to)
        for f in (p for p in to.rglob('*') if p.is_file() and (p.name==writers[name] or p.suffix=='.wav')): _whole(f)

def _as_nobody(name, to):
    ''.encode('utf-8-sig')  # nobody may not be allowed to read the modules that are not imported yet
    if name=='save_onnx': save_onnx(to.parent)
    if os.getuid()==0: os.setgroups([]); os.setgid(65534); os.setuid(65534)
    globals()[name](to)

def read_only(folder, name):
    "The error is of the operating system and names the place"
    clips(folder/'clips', 3); _set(folder)
    to = folder/'closed'; to.mkdir(); to.chmod(0o555)
    for p in (folder,*folder.parents):
        if p.stat().st_uid==os.getuid() and p!=Path('/') and not p.stat().st_mode&1: p.chmod(p.stat().st_mode|0o055)  # pytest's folders are closed to others
    _refused(outcome(_as_nobody, name, to), name, to)
    _need(not list(to.iterdir()), 'something was written')

def _set(folder):
    if not (folder/'set').exists(): synthetic_audio(folder/'set', n=80, seconds=.2)
    return folder/'set'

# killed

def _save_for_ever(to, suffix):
    both = [_some_stats(k, n_fft=1024) for k in range(2)]
    for k in range(10**9): both[k%2].save(to/f'stats{suffix}')

def kill_saving(folder, rounds):
    "The file is the old or the new one, whole"
    both,r = [_some_stats(k, n_fft=1024) for k in range(2)],Rounds(rounds, .4)
    for k in r:
        suffix = ('.safetensors','.json')[k%2]; f = folder/f'stats{suffix}'
        r.kill(_save_for_ever, folder, suffix)
        if f.exists(): _need(SpecStats.load(f) in both, 'other statistics')
        both[0].save(f); _need(SpecStats.load(f)==both[0], 'not saved')
    return r.n

def _fill(files, at): c = AudioCache(at, max_bytes=2e8); c.fill(files, progress=False); c.close()

def _samples(files, at):
    c = AudioCache(at, max_bytes=2e8)
    for f in files: _need(torch.equal(c.open(f, sample_rate=None, force_mono=False).plain(), AudioTensor.create(f).plain()), f'{f}: other samples')
    _fill(files, at)
    c = AudioCache(at, max_bytes=2e8)
    _need(c.check()==[], f'{c.check()}')
    for f in files: c.open(f)
    _need(c.info()['misses']==0, 'not filled'); c.close()

def kill_filling(folder, rounds):
    "The cache opens, all that it gives is right, and the next fill completes it"
    files = sorted(clips(folder/'clips', 60).iterdir())
    r = Rounds(rounds, takes(_fill, files, folder/'timed'))
    for k in r:
        at = folder/f'cache{k%3}'
        if k%3==0: [shutil.rmtree(folder/f'cache{i}', ignore_errors=True) for i in range(3)]
        r.kill(_fill, files, at)
        end = outcome(_samples, files, at)
        _need(end[0]=='done', f'{end}')
    return r.n

def kill_preprocessing(folder, rounds):
    "Every file that is there is whole, and the next call completes the folder"
    src = clips(folder/'clips', 40)
    want = {f.name:AudioTensor.create(f).plain() for f in preprocess_audio_folder(src, output_dir=folder/'want', progress=False).glob('*.wav')}
    r = Rounds(rounds, takes(_preprocess_to, src, folder/'timed'))
    for k in r:
        out = folder/f'out{k}'; out.mkdir()
        r.kill(_preprocess_to, src, out)
        for f in out.glob('*.wav'): audio_info(f)
        preprocess_audio_folder(src, output_dir=out, progress=False)
        got = {f.name:AudioTensor.create(f).plain() for f in out.glob('*.wav')}
        _need(got.keys()==want.keys() and all(torch.equal(got[k], want[k]) for k in want), 'other audio')
        shutil.rmtree(out)
    return r.n
def _preprocess_to(src, out): preprocess_audio_folder(src, output_dir=out, progress=False)

def kill_comparing(folder, rounds):
    "No finished run is lost, and the same call goes on to the table that it would have given"
    import pandas as pd
    _set(folder); (folder/'want').mkdir()
    r = Rounds(rounds, takes(experiment, folder/'want'))
    cols = ['way','seed','accuracy','loss']
    want = pd.read_csv(folder/'want'/'out'/'results.csv')[cols]
    for k in r:
        to = folder/f'to{k}'; to.mkdir()
        r.kill(experiment, to)
        runs = {f.name:f.read_bytes() for f in to.glob('out/runs/*.json')}
        for b in runs.values(): json.loads(b)
        end = outcome(experiment, to); _need(end[0]=='done', f'{end}')
        _need(all((to/'out'/'runs'/f).read_bytes()==b for f,b in runs.items()), 'a finished run was lost')
        _need(pd.read_csv(to/'out'/'results.csv')[cols].equals(want) and (to/'out'/'report.html').exists() and not list(to.rglob('.specnorm-*')), 'other results')
        shutil.rmtree(to)
    return r.n

def kill_exporting(folder, rounds):
    "The file is not there, or the old one, or the new one, whole"
    r = Rounds(rounds, takes(save_onnx, folder))
    nodes = _whole(folder/'front.onnx')
    for k in r:
        if k%2: (folder/'front.onnx').unlink()
        r.kill(save_onnx, folder)
        if (folder/'front.onnx').exists(): _need(_whole(folder/'front.onnx')==nodes, 'another model')
        else: _need(k%2, 'the old file is gone')
        end = outcome(save_onnx, folder); _need(end[0]=='done' and _whole(folder/'front.onnx')==nodes, f'{end}')
    return r.n

def _models():
    "Two models, each the same in every process, the second one without statistics"
    for k in range(2):
        torch.manual_seed(k); stats = _some_stats(n_fft=256)
        front = SpecFrontend(AudioConfig.BasicSpectrogram(n_fft=256, hop_length=128), 16000, stats if k==0 else (0.,1.), axes='frequency')
        yield SpecModel(front, small_cnn(3, width=16), list('abc'), stats=stats if k==0 else None)

def _save_models(to):
    both = [*_models()]
    for k in range(10**9): both[k%2].save(to)

def kill_saving_models(folder, rounds):
    "The folder holds the old model or the new one, whole, and the next save tidies up"
    x = torch.rand(16000, generator=torch.Generator().manual_seed(0))-.5
    both = [*_models()]; want = [m.predict(x, 16000).probabilities for m in both]
    _need(not torch.equal(*want), 'both models are the same')
    r,to = Rounds(rounds, 1.5),folder/'model'
    both[0].save(to); (to/'notes.txt').write_text('mine')
    for k in r:
        r.kill(_save_models, to)
        if k%2: killed(_save_models, to, most=r.most)  # a save that follows a killed one
        p = load_spec_model(to).predict(x, 16000).probabilities
        _need(any(torch.equal(p, w) for w in want), 'another model')
        both[k%2].save(to)
        _need(torch.equal(load_spec_model(to).predict(x, 16000).probabilities, want[k%2]), 'not saved')
        _need({f.name for f in to.iterdir()}=={'notes.txt','README.md','preprocess.json','model.safetensors',*(['stats.safetensors'] if k%2==0 else [])} and len([*folder.iterdir()])==1, 'something was left')
    return r.n

kills = dict(save=kill_saving, save_spec_model=kill_saving_models, cache=kill_filling, preprocess=kill_preprocessing, compare=kill_comparing, to_onnx=kill_exporting)

# workers that die

class Dies:
    "An item transform that ends its process at one item"
    def __init__(self, how, at=20): self.how,self.at,self.main = how,at,os.getpid()
    def __call__(self, i):
        if i==self.at and os.getpid()!=self.main: os._exit(3) if self.how=='exit' else os.kill(os.getpid(), getattr(signal, self.how))
        return AudioTensor(torch.rand(1,800)-.5, sr=16000)

def _epoch(how, kind):
    ds = Datasets(list(range(40)), [[Dies(how)]])
    a2s = AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(n_fft=64, hop_length=32))
    if kind=='persistent': dl = AudioDL(ds, bs=4, num_workers=2, persistent_workers=True, after_batch=[a2s])
    else: dl = TfmdDL(ds, bs=4, num_workers=2, after_batch=[a2s])
    if kind=='statistics': collect_stats(dl, source=False, progress=False)
    else:
        for b in dl: pass

def worker_dies(how, kind):
    "Seconds to an error: that a worker exited, or that a connection was reset; `Broken` where they are more than 30"
    p = start(_epoch, how, kind); t = time.monotonic()
    end = ended(*p, 60); t = time.monotonic()-t
    _need(end[0]=='error' and ('worker' in end[2].lower() or 'ConnectionError' in end[1] or 'EOFError' in end[1]), f'{end}')  # the latter where it died while it handed over a batch
    _need(t<30, f'{t:.0f} s until {end}')
    return t

# memory

def _starved(what):
    x = lambda i: AudioTensor(torch.rand(1, 160000)-.5, sr=16000)
    now = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize()
    if what=='statistics':
        a2s = AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(n_fft=1024, hop_length=128))
        dl = TfmdDL(Datasets(list(range(400)), [[x]]), bs=400, num_workers=0, after_batch=[a2s])
        collect_stats(TfmdDL(Datasets([0], [[x]]), bs=1, num_workers=0, after_batch=[a2s]), source=False, progress=False)  # what is imported late is there
        now = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now+2**28, resource.RLIM_INFINITY))
        collect_stats(dl, source=False, progress=False)
    else:
        from specnorm_fastai.all import experiment_settings,read_table,train_run
        df = read_table(what)
        resource.setrlimit(resource.RLIMIT_AS, (now+2**28, resource.RLIM_INFINITY))
        train_run(df, (df.fold==1).to_numpy(), settings=experiment_settings(bs=48, duration=20., arch='xresnet18', epochs=1))

def too_large_a_batch(folder, what):
    "An error that says to lower `bs`"
    end = outcome(_starved, _set(folder) if what=='training' else what, seconds=240)
    _need(end[0]=='error' and 'bs' in end[2] and 'memory' in end[2], f'{end}')

# two at one place

def two_on_a_cache(folder):
    files = sorted(clips(folder/'clips', 40).iterdir())
    both = [start(_fill, files, folder/'cache') for _ in range(2)]
    for p in both: end = ended(*p); _need(end[0]=='done', f'{end}')
    end = outcome(_samples, files, folder/'cache'); _need(end[0]=='done', f'{end}')

def two_on_a_comparison(folder):
    "The second is refused at once, and the first completes"
    _set(folder); to = folder/'to'; to.mkdir()
    one = start(experiment, to)
    end = time.monotonic()+60
    while not (to/'out'/'results.json').exists() and time.monotonic()<end: time.sleep(.01)
    two = outcome(experiment, to)
    _need(two[0]=='error' and 'another process' in two[2] and str(to/'out') in two[2], f'{two}')
    first = ended(*one); _need(first[0]=='done', f'{first}')
    _need((to/'out'/'report.html').exists(), 'no report')
