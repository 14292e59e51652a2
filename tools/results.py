"""Run experiments, keep their results and write experiments/RESULTS.md from them

    python tools/results.py run ESC10=DIR FSDD=DIR [NAME ...]  # what the recipes say, those of NAME or all, into results/NAME; then keep and write
    python tools/results.py experiments/esc10-ways.toml OUT    # keep what the recipe gave in OUT, then write
    python tools/results.py                                    # write again

A run that was stopped goes on where it was. A recipe whose data are not given is left out, and told of.
"""
import json,re,shlex,subprocess,sys
from pathlib import Path
import pandas as pd

root = Path(__file__).resolve().parent.parent
here = root/'experiments'
kept = ('results.csv','analysis.csv','results.json')

def first_words(recipe):
    "What a recipe is for, and its command"
    says = [l[2:] if l.startswith('# ') else l[1:] for l in recipe.read_text().splitlines() if l.startswith('#')]
    return says[0],next(l.strip() for l in says if 'specnorm-compare' in l)

def number(recipe):
    "The first experiment that a recipe is for: E3 comes before E4, and what has no number last"
    m = re.match(r'E(\d+)', first_words(recipe)[0])
    return int(m[1]) if m else 99,recipe.stem

def recipes(): return sorted(here.glob('*.toml'), key=number)

def command(recipe, data, to):
    "What runs a recipe on these folders, as words; None where its data are not among them"
    words = shlex.split(first_words(recipe)[1])[1:]
    at = lambda k: words.index(k)+1
    if (name:=words[at('--data')]) not in data: return
    words[at('--data')],words[at('--recipe')],words[at('--out')] = str(data[name]),str(recipe),str(to/recipe.stem)
    return [sys.executable, '-c', 'from specnorm_fastai.cli import compare; compare()', *words]

def run(args):
    "Run recipes one after the other, and keep what each gives"
    data,names = dict(a.split('=', 1) for a in args if '=' in a),[a for a in args if '=' not in a]
    if bad:=[k for k in data if k not in ('ESC10','FSDD')]: sys.exit(f"{bad[0]}: expected ESC10=DIR or FSDD=DIR")
    if bad:=[f'{k}={v}' for k,v in data.items() if not Path(v).is_dir()]: sys.exit(f"{bad[0]}: expected a folder")
    if bad:=sorted(set(names)-{r.stem for r in recipes()}): sys.exit(f"{bad[0]}: expected a recipe among {[r.stem for r in recipes()]}")
    if not data: sys.exit("Expected the folder of a data set: ESC10=DIR, FSDD=DIR or both")
    failed = []
    for r in (r for r in recipes() if not names or r.stem in names):
        if (words:=command(r, data, root/'results')) is None: print(f"{r.stem}: left out, its data are not given"); continue
        print(f"{r.stem}: {first_words(r)[0]}", flush=True)
        if subprocess.run(words, cwd=root).returncode: failed.append(r.stem); continue
        keep(r, root/'results'/r.stem)
        write()
    if failed: sys.exit(f"Failed: {', '.join(failed)}")

def keep(recipe, out):
    "Copy the tables of an experiment beside its recipe; what names a folder of this machine stays behind"
    to = here/Path(recipe).stem
    to.mkdir(exist_ok=True)
    info = json.loads((out/'results.json').read_text())
    for k in ('data','test_data'): info['call'][k] = Path(info['call'][k]).name if info['call'].get(k) else None
    (to/'results.json').write_text(json.dumps({k:info[k] for k in ('settings','call','versions','labels')}, indent=1)+'\n')
    rows = pd.read_csv(out/'results.csv')
    rows[['way','fold','seed','accuracy','balanced_accuracy','loss','n_train','n_valid','seconds','started']].round(6).to_csv(to/'results.csv', index=False)
    pd.read_csv(out/'analysis.csv').round(6).to_csv(to/'analysis.csv', index=False)
    if (f:=out/'conditions-analysis.csv').exists(): pd.read_csv(f).round(6).to_csv(to/f.name, index=False)

def pct(v, sign=''): return '' if pd.isna(v) else f'{100*v:{sign}.1f}'.replace('-', '−')
def span(lo, hi, sign=''): return '' if pd.isna(lo) else f'{pct(lo, sign)} to {pct(hi, sign)}'
def p_value(v): return '' if pd.isna(v) else '< 0.001' if v<.001 else f'{v:.3f}'

def many(n, what): return f"{n} {what}{'' if n==1 else 's'}"

def conditions(df, s, clean):
    "The accuracy of each way under each condition, and what is lost on average over all of them"
    ways,names = list(clean.way),[c for c in df.condition.unique() if not c.startswith('all, ')]
    acc = df.pivot_table(index='condition', columns='way', values='accuracy', sort=False)
    word = df.set_index(['condition','way']).verdict
    mark = lambda c,w: {'better':' ↑', 'worse':' ↓'}.get(word.get((c,w)), '')
    lines = ['The same networks on the held-out clips under other conditions, accuracy in %; ↑ or ↓ where the difference to the first way is established under that condition (both tests, adjusted over ways):', '',
             '| condition | '+' | '.join(ways)+' |', '|---|'+'---|'*len(ways), '| none | '+' | '.join(pct(clean.set_index('way').accuracy[w]) for w in ways)+' |']
    lines += [f"| {c} | "+' | '.join(pct(acc.loc[c,w])+mark(c,w) for w in ways)+' |' for c in names]
    every = df[df.condition.str.startswith('all, ')].set_index('way')
    lines += ['', 'What is lost on average over all of these conditions, in percentage points, and how that differs from the first way:', '',
              '| way | change | 95 % interval | difference | corrected t | clips and runs | p (Holm) | verdict |', '|---|---|---|---|---|---|---|---|']
    return lines+[f"| {w} | {pct(r.accuracy, '+')} | {span(r.low, r.high, '+')} | {pct(r['diff'], '+')} | {span(r.diff_low, r.diff_high, '+')} | {span(r.boot_low, r.boot_high, '+')} | {p_value(r.p_holm)} | "
                  f"{dict(better='loses less', worse='loses more').get(r.verdict, r.verdict)} |" for w,r in ((w,every.loc[w]) for w in ways)]

def section(d):
    "One experiment in Markdown"
    rows,table = pd.read_csv(d/'results.csv', dtype={'fold':str}),pd.read_csv(d/'analysis.csv', keep_default_na=True)
    info,recipe = json.loads((d/'results.json').read_text()),here/f'{d.name}.toml'
    s,v = info['settings'],info['versions']
    purpose,cmd = first_words(recipe)
    nets = f" of {s['members']} networks" if s.get('members', 1)>1 else ''
    lines = [f'## {d.name}', '', purpose.rstrip(':')+('' if purpose.endswith('.') else '.'), '', '```sh', cmd, '```', '',
        f"{s['clips']} clips of {s['classes']} classes; {many(rows.fold.nunique(), 'fold')}, {many(rows.seed.nunique(), 'seed')}, {many(len(rows), 'run')}{nets}, {rows.seconds.sum()/60:.0f} min of training (median {rows.seconds.median():.0f} s a run); "
        f"network `{s['arch']}`, {s['epochs']} epochs, {s['precision']}. torch {v.get('torch')}, fastai {v.get('fastai')}, {v.get('device')}. {rows.started.min()[:10]}.", '',
        '| way | runs | accuracy % | 95 % interval | difference | corrected t | clips and runs | p (Holm) | here | verdict |', '|---|---|---|---|---|---|---|---|---|---|']
    for r in table.to_dict('records'):
        lines.append(f"| {r['way']} | {r['runs']} | {pct(r['accuracy'])} | {span(r['low'], r['high'])} | {pct(r['diff'], '+')} | {span(r['diff_low'], r['diff_high'], '+')} | "
            f"{span(r['boot_low'], r['boot_high'], '+')} | {p_value(r['p_holm'])} | {'' if r['verdict']=='baseline' else r['here']} | {r['verdict']} |")
    by = rows.pivot_table(index='way', columns='fold', values='accuracy', sort=False)
    if len(by.columns)>1:
        lines += ['', 'Mean accuracy on each fold that was held out, %:', '', '| way | '+' | '.join(map(str, by.columns))+' |', '|---|'+'---|'*len(by.columns)]
        lines += [f"| {w} | "+' | '.join(pct(x) for x in r)+' |' for w,r in zip(by.index, by.to_numpy())]
    if len(table)>1: lines += ['', *[f"- **{r['way']}**: {r['why']}."+(f" To settle it: {r['needs']}." if isinstance(r['needs'], str) else '') for r in table.to_dict('records') if isinstance(r['why'], str)]]
    if (f:=d/'conditions-analysis.csv').exists(): lines += ['', *conditions(pd.read_csv(f), s, table)]
    note = here/f'{d.name}.md'
    return '\n'.join(lines)+('\n\n'+note.read_text().strip() if note.exists() else '')

head = """# Results

Written by `python tools/results.py` from the tables beside it; every run that was made is in them. Differences are to the first way, in percentage points. *Corrected t* is the interval of the corrected resampled t-test over runs and train sets, *clips and runs* that of the bootstrap; *p* is the larger of the two, after Holm's adjustment. *Here* is the verdict about networks trained on just these clips (bootstrap alone), *verdict* the one that needs both tests. [75_analysis](../nbs/75_analysis.ipynb) explains them and measures how often they are wrong.
"""

def done():
    "Folders of results, in the order of their experiments"
    return [here/r.stem for r in recipes() if (here/r.stem/'analysis.csv').exists()]

def overview():
    "What was run, and what it cost"
    lines = ['| recipe | for | clips | folds held out | runs | training |', '|---|---|---|---|---|---|']
    total = 0
    for d in done():
        rows,s = pd.read_csv(d/'results.csv'),json.loads((d/'results.json').read_text())['settings']
        total += rows.seconds.sum()
        lines.append(f"| [{d.name}](#{d.name}) | {first_words(here/f'{d.name}.toml')[0].split('. ')[0].rstrip(':')} | {s['clips']} | {rows.fold.nunique()} | {len(rows)} | {rows.seconds.sum()/60:.0f} min |")
    return '\n'.join([*lines, '', f'Together {total/3600:.1f} hours of one processor core.'])

def tried():
    "What the recipes of E3 were chosen from"
    df = pd.read_csv(here/'tried.csv').groupby(['data','settings'], sort=False).agg(runs=('seed','size'), answers=('clips','sum'), accuracy=('accuracy','mean')).reset_index()
    lines = ['## What was tried for E3', '', (here/'tried.md').read_text().strip(), '', '| data | settings | runs | answers | accuracy % |', '|---|---|---|---|---|']
    return '\n'.join(lines+[f"| {r.data} | {r.settings} | {r.runs} | {r.answers} | {pct(r.accuracy)} |" for r in df.sort_values(['data','accuracy']).itertuples()])

def text():
    first = here/'verdicts.md'
    return '\n\n'.join([head.strip(), overview(), *([first.read_text().strip()] if first.exists() else []), *map(section, done()), tried()])+'\n'

def write():
    (here/'RESULTS.md').write_text(text())
    print(f"Written: {here/'RESULTS.md'}")

if __name__=='__main__':
    if sys.argv[1:2]==['run']: run(sys.argv[2:])
    elif len(sys.argv)==3: keep(Path(sys.argv[1]), Path(sys.argv[2])); write()
    elif len(sys.argv)==1: write()
    else: sys.exit(__doc__)
