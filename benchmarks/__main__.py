"""python -m benchmarks [--only PART ...] [--quick] [--data DIR]: measure, print, and keep what was measured in benchmarks/kept and RESULTS.md

With --quick nothing is kept unless --out says where. A part that is measured alone replaces its own table only.
"""
import argparse,importlib,json,subprocess,sys,time
from pathlib import Path
from types import SimpleNamespace

from . import table

def options(quick=False, tiny=False, data=None):
    "What a part asks: how much to measure, and on what"
    scale = .25 if quick else 1
    return SimpleNamespace(quick=quick or tiny, tiny=tiny, data=data, rounds=lambda n: 1 if tiny else max(3, int(n*scale+.5)), budget=lambda s: 0. if tiny else s*scale)

def measure(part, o, threads=2):
    "Rows of one part and all that goes with them"
    import torch
    from .timing import machine
    torch.set_num_threads(threads)
    info,m = machine(threads),importlib.import_module(f'benchmarks.{part}')
    rows = m.run(o)
    cmd = f'python -m benchmarks --only {part}'+(' --quick' if o.quick else '')+(f' --data {Path(o.data).name}' if o.data else '')
    return dict(part=part, about=m.__doc__.split('\n')[0], command=cmd, machine=info, rows=rows)

def keep(res, out):
    "One JSON for each part, and the picture of growth"
    out.mkdir(parents=True, exist_ok=True)
    tidy = lambda v: float(f'{v:.4g}') if isinstance(v, float) else {k:tidy(x) for k,x in v.items()} if isinstance(v, dict) else [tidy(x) for x in v] if isinstance(v, list) else v
    (out/f"{res['part']}.json").write_text(json.dumps(tidy(res), indent=1, ensure_ascii=False)+'\n')
    if res['part']=='growth':
        from .growth import plot
        plot(res['rows'], out/'growth.png')

def write(out):
    page = (out.parent if out==table.kept else out)/'RESULTS.md'
    page.write_text(table.text(out))
    return page

def main(argv=None):
    p = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__.split('\n')[0])
    a = p.add_argument
    a('--only', nargs='+', choices=table.parts, metavar='PART', help=f"some parts: {' '.join(table.parts)}")
    a('--quick', action='store_true', help='fewer rounds and clips, a few minutes; nothing is kept')
    a('--data', metavar='DIR', help="clips in ESC-50's layout for what reads files (synthetic ones)")
    a('--threads', type=int, default=2, help='of PyTorch (2)')
    a('--out', metavar='DIR', help='where to keep what was measured (benchmarks/kept; with --quick nowhere)')
    a('--write', action='store_true', help='write RESULTS.md from what is kept, measure nothing')
    args = p.parse_args(argv)
    if args.data and not (Path(args.data)/'meta').is_dir(): p.error(f"--data: expected a folder with audio/ and meta/*.csv, got {args.data}")
    if args.threads<1: p.error(f'--threads: expected 1 or more, got {args.threads}')
    out = Path(args.out).resolve() if args.out else None if args.quick else table.kept
    if args.write: print(f'Written: {write(out or table.kept)}'); return
    todo = args.only or table.parts
    if len(todo)>1:  # each in a process of its own, so that none finds another's memory
        more = [*(['--quick'] if args.quick else []), *(['--data',args.data] if args.data else []), *(['--out',args.out] if args.out else []), '--threads',str(args.threads)]
        bad = [t for t in todo if subprocess.run([sys.executable,'-m','benchmarks','--only',t,*more]).returncode]
        if bad: sys.exit(f"failed: {', '.join(bad)}")
        return
    t = time.time()
    res = measure(todo[0], options(args.quick, data=args.data), args.threads)
    print(f"\n## {todo[0]} ({time.time()-t:.0f} s)\n", *table.lines(todo[0], res['rows']), sep='\n', flush=True)
    if out: keep(res, out); print(f'\nWritten: {write(out)}')

if __name__=='__main__': main()
