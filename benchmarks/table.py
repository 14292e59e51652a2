"Rows as tables: on the terminal, and in RESULTS.md"
import json
from pathlib import Path

here = Path(__file__).resolve().parent
kept = here/'kept'
parts = ('recorder','normalize','logmel','datapath','profile','training','imports','memory','growth')

def time_(v):
    "Seconds in the unit that suits them"
    if v is None: return ''
    k,u = next(((k,u) for k,u in ((1,'s'),(1e3,'ms')) if v*k>=1), (1e6,'µs'))
    return f'{v*k:.3g} {u}' if v*k<100 else f'{v*k:.0f} {u}'

def ratio(q):
    "Median and quartiles"
    f = lambda v: f'{v:.0f}' if v>=100 else f'{v:.3g}'
    return '' if not q else f'{f(q[1])} ({f(q[0])} to {f(q[2])})'

def target(r):
    t = r['targets']
    words = [f"{w} {t[k]:g}{u}" for k,w,u in (('at_most','≤','× limit'),('at_least','≥','× rival'),('within','≤',' s'),('batches','≤',' batches')) if k in t]
    return ', '.join(words)

def met(r): return '' if r.get('met') is None else 'yes' if r['met'] else '**no**'

def _line(*cells): return '| '+' | '.join(str(c).replace('|', '/') for c in cells)+' |'

def _times(rows):
    lines = [_line('what','ours','limit','ours / limit','rival','rival / ours','target','met','rounds'), '|---|---|---|---|---|---|---|---|---|']
    for r in rows:
        name = f"{r['name']}: {r['what']}" if r['what'] else r['name']
        if 'skipped' in r: lines.append(_line(name, f"not measured: {r['skipped']}", *['']*7)); continue
        lines.append(_line(name, time_(r['ours'][1]), f"{r['limit']}: {time_(r['limit_s'][1])}" if 'limit' in r else '', ratio(r.get('to_limit')),
            f"{r['rival']}: {time_(r['rival_s'][1])}" if 'rival' in r else '', ratio(r.get('to_rival')), target(r), met(r), r['rounds']))
    notes = [f"- {r['name']} ({r['what']}): {r['note']}." for r in rows if r.get('note')]
    return lines+(['']+notes if notes else [])

def _profile(rows):
    return [_line('step','ms of CPU for one clip','quartiles','repeats'), '|---|---|---|---|']+[
        _line(f"{r['name']}: {r['what']}", f"{1e3*r['ours'][1]:.3f}", f"{1e3*r['ours'][0]:.3f} to {1e3*r['ours'][2]:.3f}", r['rounds']) for r in rows]

def _memory(rows):
    return [_line('what','batches above the loader','peak of the process','target','met'), '|---|---|---|---|---|']+[
        _line(f"{r['name']}: {r['what']}", f"{r['batches']:.2f}", f"{r['peak_mb']:.0f} MB", target(r), met(r)) for r in rows]

def _growth(rows):
    lines = ['![Seconds of a pass over clips, batch size and n_fft](kept/growth.png)', '', _line('over','seconds (µs for one clip) at each size','slope, log-log','of the last step'), '|---|---|---|---|']
    for r in rows:
        pts = '; '.join(f"{p['x']}: {p['seconds']:.3g} ({p['us_per_clip']:.0f})" for p in r['points'])
        lines.append(_line(r['name'], pts, f"{r['slope']:.2f}", f"{r['last_slope']:.2f}"))
    return lines

_as = dict(profile=_profile, memory=_memory, growth=_growth)
def lines(part, rows): return _as.get(part, _times)(rows)

def _machine(m):
    v = ', '.join(f'{k} {x}' for k,x in m['versions'].items() if x)
    return f"{m['cpu']}, {m['cores']} cores, {m['threads']} threads; Python {m['python']}, {v}; commit {m['commit'] or 'unknown'}, {m['date']}; load {m['load'][0]} when it began."

head = """# Benchmarks

Written by `python -m benchmarks --write` from `kept/*.json`; `make bench` measures. Candidates run in turn in one process (A B C A B C ...), so that what disturbs the machine disturbs all of them: times are medians, ratios are taken within each round and given as the median with quartiles. The *limit* is a yardstick of the same work's size, such as reading the batch once (`x.sum()`), copying it to new memory (`x.clone()`), or importing fastai; the *rival* is another way to the same result, and `rival / ours` above 1 means that ours is faster. *Published* is the experiment of the article that the README names, implemented anew on today's libraries (`rivals.py`): soundfile, scipy's `resample_poly`, `(x - mean) / std`, torchaudio, and its recorders. Times depend on the machine and decide no test.
"""

def section(d):
    said = [f"## {d['part']}", '', d['about']+'.', '', f"`{d['command']}`", '', _machine(d['machine']), '', *lines(d['part'], d['rows'])]
    rows = [r for r in d['rows'] if r.get('met') is not None]
    if rows: said += ['', f"{sum(r['met'] for r in rows)} of {len(rows)} targets are met."]
    if (note:=here/'notes'/f"{d['part']}.md").exists(): said += ['', note.read_text().strip()]
    return '\n'.join(said)

def text(folder=kept):
    "The whole page"
    return '\n\n'.join([head.strip(), *[section(json.loads(f.read_text())) for p in parts if (f:=Path(folder)/f'{p}.json').exists()]])+'\n'
