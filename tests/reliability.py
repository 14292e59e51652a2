"All of it at length: thousands of bad inputs, rounds of faults, a long day, other versions. `python -m tests.reliability --help`; writes RELIABILITY.md beside it"
import argparse,json,os,platform,shutil,sys,tempfile,time
from datetime import date
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))
kept = here/'reliability.json'

# name: (promise, test in test_faults.py)
_killed = 'test_killed_at_any_moment'
PROMISES = {
    'full disk': ('An `OSError` or `ValueError` that names the file; no part of a file and no temporary one is left', 'test_a_full_disk_is_an_error_and_no_part_of_a_file'),
    'closed folder': ('An `OSError` or `ValueError` that names the place; nothing is written', 'test_a_folder_that_cannot_be_written_is_an_error_that_names_it'),
    'kill -9, save': ('The statistics file is the old or the new one, whole', _killed),
    'kill -9, save_spec_model': ('The folder holds the old model or the new one, whole; the next save tidies up', _killed),
    'kill -9, cache': ('The cache opens, what it gives is right, and the next `fill` completes it', _killed),
    'kill -9, preprocess': ('Every file that is there is whole, and the next call completes the folder', _killed),
    'kill -9, compare': ('No finished run is lost; the same call goes on, to the same table', _killed),
    'kill -9, to_onnx': ('The file is absent, or the old one, or the new one, whole', _killed),
    'a worker dies': ('An error within 30 s, no hang: that a worker exited, or torch\'s `ConnectionResetError` where it died while it handed over a batch', 'test_a_worker_that_dies_is_an_error_and_no_hang'),
    'no memory for a batch': ('An error that says to lower `bs`', 'test_too_large_a_batch_says_to_lower_bs'),
    'two processes, one cache': ('Both fill it, and it is whole', 'test_two_processes_fill_one_cache'),
    'two processes, one experiment': ('The second is refused at once and names the folder; the first completes', 'test_of_two_experiments_in_one_folder_one_is_refused')}

def machine():
    import torch
    with open('/proc/meminfo') as f: gb = int(f.readline().split()[1])/2**20
    return f'{os.cpu_count()} cores, {gb:.0f} GB, {platform.system()} {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}'

def fuzzed(n, only=None):
    import fuzzing
    res,bad = {},[]
    for what in only or fuzzing.targets:
        t = time.time()
        with tempfile.TemporaryDirectory() as d:
            try: ends = fuzzing.fuzz(what, d, n, random=True)
            except Exception as e: bad += [f'{what}: {o}: {getattr(o, "__notes__", "")}' for o in getattr(e, 'exceptions', [e])]; continue
        res[what] = dict(tried=sum(ends.values()), ends=dict(ends), seconds=round(time.time()-t))
        print(f'{what}: {res[what]}', flush=True)
    for b in bad: print('BROKEN', b[:3000], flush=True)
    return res,bad

def faulted(rounds, only=None):
    import faults
    res,bad = {},[]
    def do(name, f, *args):
        if only and name not in only: return
        t,d = time.time(),Path(tempfile.mkdtemp())
        os.chmod(d, 0o755)
        try: got = f(*([d] if f not in (faults.worker_dies,) else []), *args)
        except Exception as e: bad.append(f'{name} {args}: {e}'); print('BROKEN', bad[-1], flush=True); return
        finally: shutil.rmtree(d, ignore_errors=True)
        r = res.setdefault(name, dict(rounds=0, seconds=0., how=[]))
        r['rounds'] += got if name.startswith('kill') else 1  # of a call that was over before it was killed nothing is said
        if name=='a worker dies': r['slowest'] = round(max(r.get('slowest', 0), got), 1)
        r['seconds'] = round(r['seconds']+time.time()-t, 1)
        r['how'] += [str(a) for a in args] if not name.startswith('kill') else []
        print(f'{name} {args}: {r["rounds"]} rounds', flush=True)
    for w in faults.writers: do('full disk', faults.full_disk, w); do('closed folder', faults.read_only, w)
    for k,f in faults.kills.items(): do(f'kill -9, {k}', f, rounds if k in ('save','save_spec_model','cache','preprocess') else max(2, rounds//8))
    for _ in range(max(1, rounds//10)):
        for how in ('exit','SIGKILL','SIGSEGV'):
            for kind in ('plain','persistent','statistics'): do('a worker dies', faults.worker_dies, how, kind)
    for w in ('statistics','training'): do('no memory for a batch', faults.too_large_a_batch, w)
    for _ in range(max(2, rounds//10)): do('two processes, one cache', faults.two_on_a_cache); do('two processes, one experiment', faults.two_on_a_comparison)
    return res,bad

def loaded(clips, epochs):
    import loads
    return loads.all_rounds(clips, epochs, lambda s: print(s, flush=True))

def guided_by(seconds, only=None):
    "Results, promises that were broken, and why none of it could be run"
    import guided
    if why:=guided.missing(): print(f'atheris: not run: {why}', flush=True); return {},[],why
    res,bad = {},[]
    for k in only or guided.TARGETS:
        r = guided.guide(k, seconds, lambda s: print(s, flush=True))
        if 'broken' in r: bad.append(f"{k}: {r['broken']}"); print('BROKEN', bad[-1][:3000], flush=True)
        else: res[k] = r
    return res,bad,None

def matrix(envs, only, each):
    import matrix as m
    res = {}
    for n in only or m.STACKS: res[n] = m.run(n, envs, lambda s: print(s, flush=True)); each(res)
    return res

def write(d):
    "RELIABILITY.md of what was run"
    L = ['# What was tried to break it', '', 'Written by `python -m tests.reliability` (`make reliability`); every number is of a run. A smaller round of each runs in `tests/test_fuzz.py` and `tests/test_faults.py`.', '']
    when = lambda k: f"{d[k]['date']}, {d[k]['machine']}."
    if 'fuzz' in d:
        f = d['fuzz']['results']
        L += ['## Bad input', '', 'Files and arguments altered at random. Each ends well or with a `ValueError`, `TypeError` or `OSError` that names the file or the parameter; a command ends with status 1 or 2 and one message. '
              'No crash, no hang (10 s for an input), no more than 3 GB of memory, nothing unpickled, no process started, no file written by a reader. `read`: the change did no harm, and what was read is valid.', '',
              when('fuzz'), '', '| input | tried | ends | seconds |', '|---|---|---|---|']
        L += [f"| {k} | {v['tried']:,} | {', '.join(f'{e}: {n:,}' for e,n in sorted(v['ends'].items(), key=lambda p: -p[1]))} | {v['seconds']} |" for k,v in f.items()]
        L += ['', f"{sum(v['tried'] for v in f.values()):,} in all. An altered page of a cache is found by LMDB's verifier before the file is opened; that needs lmdb 3, and a cache that no other process has open.", '']
    if 'atheris' in d:
        f = d['atheris']['results']
        L += ['## Bad input, guided', '', 'atheris (libFuzzer) alters bytes and keeps those that reach other parts of this package, which alone is instrumented (`tests/guided.py`). The promise is the same. Digests and sums are made to fit, as by one who means it. '
              '`reached`: places of the code that the first inputs reach, and all of them.', '', when('atheris'), '', '| input | tried | ends | reached | seconds |', '|---|---|---|---|---|']
        L += [f"| {k} | {v['tried']:,} | {', '.join(f'{e}: {n:,}' for e,n in sorted(v['ends'].items(), key=lambda p: -p[1]))} | {v['reached'][0]}, {v['reached'][1]} | {v['seconds']} |" for k,v in f.items()]
        L += ['']
    if 'faults' in d:
        L += ['## Faults', '', when('faults'), '', '| fault | promise | rounds | test |', '|---|---|---|---|']
        for k,(promise,test) in PROMISES.items():
            if k in d['faults']['results']:
                r = d['faults']['results'][k]
                L.append(f"| {k} | {promise} | {r['rounds']}{', slowest: '+str(r['slowest'])+' s' if 'slowest' in r else ''} | `{test}` |")
        L += ['', 'Disks are full: a tmpfs of four pages where it can be mounted, else a limit of the size of files. What writes: ' + ', '.join(f'`{h}`' for h in d['faults']['results'].get('full disk', {}).get('how', [])) + '. '
              'Of `kill -9`, rounds are the calls that were killed before their end. A process that is killed may leave a temporary file `.specnorm-*` beside the target; `compare` removes those of its folder. `Learner.export` and `Learner.save` are fastai\'s, and not written whole.', '']
    if 'load' in d:
        r = d['load']['results']
        L += ['## Load', '', when('load'), '', '| clips | seconds | memory grown by, MB | open files | files in shared memory |', '|---|---|---|---|---|']
        L += [f"| {v['clips']:,}, {k}, {v['workers']} workers | {v['seconds']} | {v['grown_mb']} | {v['files']:+d} | {v['shm']:+d} |" for k,v in r['many_clips'].items()]
        L += ['', 'Training, measured after each epoch; growth is from the end of the warm-up (a fifth of the epochs) to the end.', '', '| | resident MB, first, after warm-up and last | growth: MB | open files | threads | processes | shared memory |', '|---|---|---|---|---|---|---|']
        L += [f"| {k} | {v['first']['rss_mb']}, {v['after_warm_up']['rss_mb']}, {v['last']['rss_mb']} | {v['growth']['rss_mb']} | {v['growth']['files']} | {v['growth']['threads']} | {v['growth']['processes']} | {v['growth']['shm']} |" for k,v in r.items() if k!='many_clips']
        L += ['']
    if 'matrix' in d:
        L += ['## Versions', '', when('matrix')+' `tests/newest_stack.py` and some test files in each.', '', '| stack | Python | fastai | torch | librosa | pandas | result | tests passed | seconds |', '|---|---|---|---|---|---|---|---|---|']
        for k,v in d['matrix']['results'].items():
            vs = v.get('versions', {})
            L.append(f"| {k} | {' | '.join(vs.get(n, '-') for n in ('python','fastai','torch','librosa','pandas'))} | {v['state']} | {v.get('passed', 'program only')} | {v.get('seconds', '-')} |")
        from matrix import STACKS
        if left:=[k for k in STACKS if k not in d['matrix']['results']]: L += ['', f"Not run: {'; '.join(left)}."]
        L += ['']
    (here/'RELIABILITY.md').write_text('\n'.join(L).rstrip()+'\n')

def main():
    p = argparse.ArgumentParser(prog='python -m tests.reliability', description=__doc__)
    p.add_argument('--fuzz', type=int, metavar='N', help='inputs of each kind (5000)')
    p.add_argument('--only', nargs='+', help='these kinds of input, these faults or these stacks alone; the other results are kept, so that a run can go on where one ended')
    p.add_argument('--atheris', type=int, metavar='SECONDS', help='inputs that are guided by what they reach, so long for each kind; skipped where atheris is not importable (180)')
    p.add_argument('--faults', type=int, metavar='ROUNDS', help='rounds of killing (40)')
    p.add_argument('--load', type=int, nargs=2, metavar=('CLIPS','EPOCHS'), help='(100000 50)')
    p.add_argument('--matrix', nargs='?', const=tempfile.gettempdir(), metavar='FOLDER', help='other versions, in environments that are made in this folder (5 to 8 GB at a time)')
    p.add_argument('--write', action='store_true', help='only write RELIABILITY.md of what was kept')
    a = p.parse_args()
    if not any(v is not None for v in (a.fuzz,a.atheris,a.faults,a.load,a.matrix)) and not a.write: a.fuzz,a.atheris,a.faults,a.load = 5000,180,40,(100_000,50)
    import torch
    torch.set_num_threads(1)
    d,bad = json.loads(kept.read_text()) if kept.exists() else {},[]
    def keep(k, results):
        if not results: return
        old = d.get(k, {}).get('results', {}) if a.only else {}
        d[k] = dict(date=str(date.today()), machine=machine(), results={**old, **results})
        kept.write_text(json.dumps(d, indent=1)+'\n')
    if a.fuzz is not None: res,b = fuzzed(a.fuzz, a.only); keep('fuzz', res); bad += b
    if a.atheris is not None: res,b,_ = guided_by(a.atheris, a.only); keep('atheris', res); bad += b
    if a.faults is not None: res,b = faulted(a.faults, a.only); keep('faults', res); bad += b
    if a.load is not None: keep('load', loaded(*a.load))
    if a.matrix is not None: res = matrix(a.matrix, a.only, lambda r: keep('matrix', r)); bad += [f"{k}: {v}" for k,v in res.items() if v['state']=='failed']
    write(d)
    print(f'{len(bad)} promises broken' if bad else 'every promise kept')
    return int(bool(bad))

if __name__=='__main__': sys.exit(main())
