"""Make the folders ESC10 and FSDD of the experiments from what their authors publish

    python tools/datasets.py esc10 ESC50 OUT [--folds 1 2 3 4] [--copy]             # from ESC-50: audio/ and meta/esc50.csv
    python tools/datasets.py fsdd REPO OUT [--speakers george jackson ...] [--copy]  # from github.com/Jakobovski/free-spoken-digit-dataset

OUT gets audio/ and one table in meta/. Clips are hard links, which take no room, or copies.
"""
import argparse,csv,os,re,shutil,sys
from collections import Counter
from itertools import islice
from pathlib import Path

_esc50 = ['filename','fold','target','category','esc10','src_file','take']

def _some(names, n=5): return ', '.join(map(str, names[:n]))+(' ...' if len(names)>n else '')

def _need(source, what, *names):
    "Raise where a folder lacks what it is to hold"
    if not source.is_dir(): raise ValueError(f"{source}: expected {what}, there is no such folder")
    if gone:=[n for n in names if not (source/n).exists()]: raise ValueError(f"{source}: expected {what}, there is no {gone[0]}")

def _chosen(option, want, there, where):
    "The values of a column that are asked for, all where none are"
    if bad:=[w for w in want or () if w not in there]: raise ValueError(f"{option}: expected some of {sorted(there)}, which are in {where}, got {bad[0]!r}")
    return set(want or there)

def _write(out, name, rows, audio, copy):
    "Clips of a folder and their table, which is written last"
    if out.exists() and not out.is_dir() or out.is_dir() and any(out.iterdir()): raise ValueError(f"{out}: expected a new or an empty folder, it holds something")
    names = [r['filename'] for r in rows]
    if gone:=[n for n in names if not (audio/n).is_file()]: raise ValueError(f"{audio}: {len(gone)} of {len(rows)} clips are missing: {_some(gone)}")
    if none:=[n for n in names if not (audio/n).stat().st_size]: raise ValueError(f"{audio}: expected sound in each clip, {len(none)} are empty: {_some(none)}")
    for d in ('audio','meta'): (out/d).mkdir(parents=True, exist_ok=True)
    for r in rows:
        of,to = (audio/r['filename']).resolve(),out/'audio'/r['filename']
        if copy: shutil.copyfile(of, to); continue
        try: os.link(of, to)
        except OSError as e: raise ValueError(f"{to}: cannot be a link to {of} ({e.strerror}). Delete {out}, and give --copy") from None
    with open(out/'meta'/name, 'w', newline='', encoding='utf8') as f:
        w = csv.DictWriter(f, list(rows[0]))
        w.writeheader(); w.writerows(rows)

def esc10(source, out, folds=None, copy=False):
    "ESC-10 in ESC-50's layout: the rows of its table whose column `esc10` is true, in their order"
    source,out = Path(source).expanduser(),Path(out).expanduser()
    _need(source, 'the unpacked ESC-50', 'audio', file:='meta/esc50.csv')
    try:
        with open(source/file, newline='', encoding='utf-8-sig') as f: table = csv.DictReader(f); cols,every = table.fieldnames or [],list(table)
    except (UnicodeDecodeError,csv.Error) as e: raise ValueError(f"{source/file}: expected a table in UTF-8 ({e})") from None
    if gone:=[c for c in _esc50 if c not in cols]: raise ValueError(f"{source/file}: expected the columns {_esc50}, there is no {gone[0]!r}")
    if bad:=[i for i,r in enumerate(every) if None in r or None in r.values()]: raise ValueError(f"{source/file}: expected {len(cols)} fields in row {bad[0]+2}, got {'more' if None in every[bad[0]] else 'fewer'}")
    rows = [{c:r[c] for c in _esc50} for r in every if r['esc10'].strip().lower()=='true']
    if not rows: raise ValueError(f"{source/file}: expected rows whose column 'esc10' is True, there is none")
    if bad:=[n for r in rows if (n:=r['filename']) in ('','.','..') or re.search(r'[\\/\0]', n)]: raise ValueError(f"{source/file}: expected names of files in audio/, got {bad[0]!r}")
    if bad:=[n for n,k in Counter(r['filename'] for r in rows).items() if k>1]: raise ValueError(f"{source/file}: expected each file once, got {bad[0]!r} more than once")
    folds = _chosen('--folds', folds, {r['fold'] for r in rows}, source/file)
    rows = [r for r in rows if r['fold'] in folds]
    _write(out, 'esc10.csv', rows, source/'audio', copy)
    return f"{out}: {len(rows)} clips of {len({r['category'] for r in rows})} classes, folds {', '.join(sorted(folds))}"

def fsdd(source, out, speakers=None, copy=False):
    "The spoken digits in ESC-50's layout; recordings 0 to 4 of each speaker and digit are the test clips, as in their README"
    source,out = Path(source).expanduser(),Path(out).expanduser()
    _need(source, 'a checkout of free-spoken-digit-dataset', 'recordings')
    names = sorted(f.name for f in (source/'recordings').glob('*.wav') if not f.name.startswith('.'))
    if not names: raise ValueError(f"{source/'recordings'}: expected recordings such as 7_jackson_32.wav, there is none")
    parts = {n:re.fullmatch(r'([0-9])_([^_]+)_(0|[1-9][0-9]*)\.wav', n) for n in names}
    if bad:=[n for n,m in parts.items() if not m]: raise ValueError(f"{source/'recordings'}: expected names such as 7_jackson_32.wav, got {bad[0]}")
    speakers = _chosen('--speakers', speakers, {m[2] for m in parts.values()}, source/'recordings')
    rows = [dict(filename=n, digit=m[1], speaker=m[2], index=m[3], is_test=int(m[3])<5) for n,m in parts.items() if m[2] in speakers]
    each = 1+max(int(r['index']) for r in rows)
    if n:=10*len(speakers)*each-len(rows):
        gone = list(islice((c for d in range(10) for s in sorted(speakers) for i in range(each) if (c:=f'{d}_{s}_{i}.wav') not in parts), 6))
        raise ValueError(f"{source/'recordings'}: expected {each} recordings of each digit and speaker, {n} are missing: {_some(gone)}")
    _write(out, 'fsdd.csv', rows, source/'recordings', copy)
    return f"{out}: {len(rows)} clips of 10 digits, {sum(r['is_test'] for r in rows)} of them test clips, speakers {', '.join(sorted(speakers))}"

def _parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest='what', required=True)
    for name,src,option,what in (('esc10','ESC50','--folds','folds of the table'),('fsdd','REPO','--speakers','speakers, by the names in the files')):
        a = sub.add_parser(name, help=globals()[name].__doc__).add_argument
        a('source', metavar=src); a('out', metavar='OUT')
        a(option, nargs='+', help=f"only these {what} (all)")
        a('--copy', action='store_true', help="copy the clips; without it they are hard links")
    return p

if __name__=='__main__':
    args = vars(_parser().parse_args())
    try: print(globals()[args.pop('what')](**args))
    except (ValueError,OSError) as e: sys.exit(str(e))
