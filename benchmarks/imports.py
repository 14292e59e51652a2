"What a start costs: imports and commands in fresh processes"
import os,subprocess,sys
from pathlib import Path

from .timing import interleaved,root,row

def _process(*args):
    env = {**os.environ, 'PYTHONPATH':os.pathsep.join(filter(None, (str(root),os.environ.get('PYTHONPATH'))))}
    def f():
        r = subprocess.run([sys.executable,*args], capture_output=True, text=True, env=env)
        if r.returncode: raise RuntimeError(r.stderr[-2000:])
    return f

def run(o):
    both,fastai = 'fastai, then ours','import fastai.vision.all'
    cands = {fastai:_process('-c',fastai), 'ours':_process('-c','import specnorm_fastai.all'),
        both:_process('-c','from fastai.vision.all import *\nfrom specnorm_fastai.all import *')}
    if o.tiny: cands = {k:_process('-c','pass') for k in cands}
    t = interleaved(cands, rounds=o.rounds(9), warmup=1, budget=o.budget(90), least=3 if o.quick else 5)
    res = [row('import specnorm_fastai.all', 'alone', t, 'ours', fastai, at_most=1.15), row('import fastai.vision.all, specnorm_fastai.all', 'as a notebook does', t, both, fastai, at_most=1.15)]
    for c in ('compare','stats','drift'):
        exe,what = Path(sys.executable).parent/f'specnorm-{c}',f'specnorm-{c} --help'
        args = (str(exe),) if exe.exists() else ('-c',f'import sys; sys.argv[0] = "specnorm-{c}"; from specnorm_fastai.cli import {c}; sys.exit({c}())')
        res.append(row(what, 'until it is done', interleaved({'ours':_process(*args, '--help')}, rounds=o.rounds(9), warmup=1), 'ours', within=1.))
    return res
