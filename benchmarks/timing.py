"Time candidates in turn, and put what came out into rows"
import gc,os,platform,subprocess,sys,time
from datetime import date
from pathlib import Path

import numpy as np

root = Path(__file__).resolve().parent.parent

def interleaved(cands, rounds=15, warmup=2, budget=20., least=5, before=None, together=0.):
    """Seconds of one call of each candidate, name to a list with one entry a round: A B C A B C ...; fewer rounds where `budget` seconds are over, but `least`.
    In a round, what takes less than `together` seconds is called as often as fits into them, and the mean taken: no candidate is measured on what the one before it left in the caches.
    `before` is called, untimed, ahead of each: it wakes sleeping threads and fills the caches alike, whatever ran last"""
    for _ in range(warmup):
        for f in cands.values(): f()
    times = {k:1 for k in cands}
    if together:
        for k,f in cands.items():
            t = time.perf_counter(); f(); times[k] = max(1, int(together/max(time.perf_counter()-t, 1e-6)))
    res,t0,was = {k:[] for k in cands},time.perf_counter(),gc.isenabled()
    gc.collect(); gc.disable()
    try:
        for r in range(rounds):
            if r>=least and time.perf_counter()-t0>budget: break
            for k,f in cands.items():
                if before: before()
                t = time.perf_counter()
                for _ in range(times[k]): f()
                res[k].append((time.perf_counter()-t)/times[k])
    finally:
        if was: gc.enable()
    return res

def quartiles(v): return [float(q) for q in np.quantile(v, [.25,.5,.75])]

def row(name, what, times, ours, limit=None, rival=None, at_most=None, at_least=None, within=None, note=''):
    """One line of a table. `times` as of `interleaved`; ratios are taken within each round, then their quartiles.
    `at_most`: what `ours/limit` may be; `at_least`: what `rival/ours` should be; `within`: seconds that ours may take"""
    t = {k:np.asarray(v, dtype=float) for k,v in times.items()}
    res = dict(name=name, what=what, ours=quartiles(t[ours]), rounds=len(t[ours]), note=note, targets={}, met=None)
    if limit is not None: res.update(limit=limit, limit_s=quartiles(t[limit]), to_limit=quartiles(t[ours]/t[limit]))
    if rival is not None: res.update(rival=rival, rival_s=quartiles(t[rival]), to_rival=quartiles(t[rival]/t[ours]))
    if at_most is not None: res['targets']['at_most'] = at_most
    if at_least is not None: res['targets']['at_least'] = at_least
    if within is not None: res['targets']['within'] = within
    got = dict(at_most=lambda v: res['to_limit'][1]<=v, at_least=lambda v: res['to_rival'][1]>=v, within=lambda v: res['ours'][1]<=v)
    if res['targets']: res['met'] = all(bool(got[k](v)) for k,v in res['targets'].items())
    return res

def skipped(name, what, why): return dict(name=name, what=what, skipped=why)

def _cpu():
    try: return next(l.split(':',1)[1].strip() for l in open('/proc/cpuinfo') if l.startswith('model name'))
    except (OSError,StopIteration): return platform.processor() or platform.machine()

def _git(*args):
    r = subprocess.run(['git','-C',str(root),*args], capture_output=True, text=True)
    return r.stdout.strip() if r.returncode==0 else ''

def machine(threads):
    "What a time depends on"
    from importlib.metadata import PackageNotFoundError,version
    def v(p):
        try: return version(p)
        except PackageNotFoundError: return None
    commit = _git('rev-parse','--short','HEAD')
    changed = _git('status','--porcelain','--','specnorm_fastai','benchmarks/*.py')
    return dict(cpu=_cpu(), cores=os.cpu_count(), threads=threads, python=platform.python_version(), system=f'{platform.system()} {platform.machine()}',
        versions={p:v(p) for p in ('torch','torchaudio','nnAudio','fastai','librosa','soundfile','soxr','scipy','numpy')},
        commit=commit+(' with changes' if commit and changed else ''), date=str(date.today()), load=[round(l, 1) for l in os.getloadavg()])

def fresh(code, *args, env=None, timeout=600):
    "Run Python code in a process of its own; what it printed last"
    r = subprocess.run([sys.executable,'-c',code,*map(str, args)], capture_output=True, text=True, timeout=timeout, cwd=root, env={**os.environ, **(env or {})})
    if r.returncode: raise RuntimeError(f"a process of its own failed:\n{r.stderr[-2000:]}")
    return r.stdout.strip().split('\n')[-1]

def cpu_seconds():
    "CPU seconds of this process and of its children that have ended"
    import resource
    return sum(u.ru_utime+u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF,resource.RUSAGE_CHILDREN)))
