"Renders nbs/index.ipynb with its stored outputs to README.md. Executes nothing; --check only compares."
import argparse, base64, posixpath, re, sys
from pathlib import Path
import yaml
from fastcore.nbio import read_nb

src,dest,pics = 'nbs/index.ipynb','README.md','nbs/images'
_ansi = re.compile(r'\x1b\[[0-9;]*m')
# code, which stays as it is, or the target of a relative link
_link = re.compile(r'^ *(?P<fence>```+|~~~+).*?^ *(?P=fence)|(?P<tick>`+)[^`\n]+(?P=tick)|(?<=\]\()(?![a-z][a-z0-9+.-]*:|[#/])(?P<to>[^)\s]+)',
                   re.M|re.S|re.I)

def _fence(s, lang=''):
    ticks = max([3] + [1+len(o) for o in re.findall('^`+', s, re.M)]) * '`'
    return f'{ticks}{lang}\n{s.rstrip()}\n{ticks}'

def _front(s):
    "First cell `s` as `# title` and `> subtitle`: YAML is spelled out, `- key: value` lines right under the subtitle are dropped"
    m = re.fullmatch(r'---\s*\n(.*?)\n---\s*', s, re.S)
    if not m: return re.sub(r'\A(# .*\n+(?:>.*\n+)*)(?:- [\w-]+: .*(?:\n|\Z))+', r'\1', s)
    d = yaml.safe_load(m[1])
    return '\n\n'.join(f'{pre} {d[k]}' for pre,k in (('#','title'), ('>','description')) if d.get(k))

class Readme:
    "The text and pictures that the notebook makes, and what is wrong with it"
    def __init__(self, root='.'):
        self.root,self.pics,self.problems = Path(root),{},[]
        cells = [c for c in read_nb(self.root/src).cells if c.source.strip()]
        if cells and cells[0].cell_type!='code': cells[0].update(source=_front(cells[0].source), cell_type='markdown')
        parts = [p.strip('\n') for c in cells for p in self._cell(c)]
        self.text = '\n\n'.join(p for p in parts if p.strip()) + '\n'

    def _cell(self, c):
        on  = lambda *nms: any(c.directive(o) in ('', 'true') for o in nms)
        off = lambda *nms: any(c.directive(o)=='false' for o in nms)
        if c.cell_type=='raw' or on('hide') or off('include') or c.has_directive('default_exp'): return
        code,outs,alt = not (off('echo') or on('hide_input')), not (off('output') or on('hide_output')), (c.directive('fig-alt') or '').strip('"\'')
        c.remove_directives()
        if c.cell_type=='markdown': yield _link.sub(self._rebase, c.source)
        else:
            if code: yield _fence(c.source, 'python')
            if outs: yield from (self._output(o, alt, c.id) for o in c.get('outputs', []))

    def _rebase(self, m):
        "A link relative to nbs/ in the notebook, relative to README.md here"
        if not m['to']: return m[0]
        path,sep,frag = m['to'].partition('#')
        path = posixpath.normpath(posixpath.join('nbs', path))
        if not (self.root/path).exists(): self.problems.append(f'{src}: the link to {m["to"]} leads nowhere')
        return path+sep+frag

    def _output(self, o, alt, id_):
        d = o.get('data', {})
        if o.output_type=='stream': txt = o.text if o.name=='stdout' else ''
        elif o.output_type=='error': txt = f'{o.ename}: {o.evalue}'
        elif 'image/png' in d: return self._picture(d['image/png'], alt, id_)
        elif 'text/markdown' in d: return d['text/markdown']
        else: txt = d.get('text/plain', '')
        return _fence(_ansi.sub('', txt)) if txt.strip() else ''

    def _picture(self, png, alt, id_):
        if not alt: self.problems.append(f'{src}: the picture of cell {id_} has no words, add a line `#| fig-alt: what it shows`')
        fn = f'{pics}/readme-{len(self.pics)+1}.png'
        self.pics[fn] = base64.b64decode(png)
        return f'![{alt}]({fn})'

    def stale_pics(self): return [p for p in sorted((self.root/pics).glob('readme-*.png')) if p.relative_to(self.root).as_posix() not in self.pics]

    def write(self):
        for p in self.stale_pics(): p.unlink()
        for fn,data in {**self.pics, dest:self.text.encode()}.items():
            (self.root/fn).parent.mkdir(parents=True, exist_ok=True)
            (self.root/fn).write_bytes(data)

    def differences(self):
        "What `write` would change"
        old = lambda fn: (self.root/fn).read_bytes() if (self.root/fn).exists() else None
        bad = [fn for fn,data in {**self.pics, dest:self.text.encode()}.items() if old(fn)!=data]
        bad += [p.relative_to(self.root).as_posix() for p in self.stale_pics()]
        return self.problems + [f'{fn}: differs from what {src} renders to. Mend: edit the notebook, then make readme' for fn in bad]

def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument('--check', action='store_true', help='write nothing, exit 1 where README.md or its pictures differ')
    readme = Readme(Path(__file__).resolve().parent.parent)
    if ap.parse_args().check: bad = readme.differences()
    else:
        readme.write()
        bad = readme.problems
    if bad: sys.exit('\n'.join(bad))

if __name__=='__main__': main()
