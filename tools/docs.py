"""Makes the site in _docs/ from the notebooks with their stored outputs, the docments and the Markdown files. Executes no notebook, asks nothing of the network.

nbdev's own `nbdev-docs` is not used: it renders with quarto, a program of its own that no package index holds (`quarto-cli` on PyPI only downloads it from GitHub while it is installed).
This one needs nothing but the extra `docs`.

    python tools/docs.py            build; exit 1 where a link, an anchor or a picture leads nowhere
    python tools/docs.py --serve    build, then serve it on http://127.0.0.1:8000
"""
import argparse,ast,base64,enum,functools,hashlib,html,inspect,json,logging,re,shutil,sys,time,types,warnings
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from posixpath import dirname,join,normpath,relpath
from urllib.parse import unquote,urlsplit

from fastcore.docments import docments,empty
from fastcore.nbio import read_nb
from nbdev.config import get_config
from nbdev.doclinks import patch_name

root = Path(__file__).resolve().parent.parent
# Guides in the order of reading; what lies in these folders and is not named here follows in alphabetical order
guides = dict(tutorials='Tutorials', howto='How to')
order = '''tutorials/normalizing_spectrograms tutorials/trusting_statistics howto/from_fastaudio howto/from_vits howto/your_own howto/unequal_lengths
    howto/choose_normalization howto/train_on_few_clips howto/transfer_learning howto/big_corpus howto/many_gpus howto/share_model howto/deploy_onnx howto/watch_drift'''.split()
# Markdown files of the repository: path -> (section, title); those that are not there are left out
texts = {'experiments/RESULTS.md':('Results','Experiments'), 'benchmarks/RESULTS.md':('Results','Speed and memory'), 'CHANGELOG.md':('Project','Changes'),
         'CONTRIBUTING.md':('Project','Contributing'), 'SECURITY.md':('Project','Security'), 'tests/RELIABILITY.md':('Project','Reliability')}

_ansi = re.compile(r'\x1b\[[0-9;]*m')
# code, which stays as it is, or the target of a link
_link = re.compile(r'^ *(?P<fence>```+|~~~+).*?^ *(?P=fence)|(?P<tick>`+)[^`\n]+(?P=tick)|(?<=\]\()(?!#)(?P<to>[^)\s]+)', re.M|re.S)
_away = re.compile(r'^([a-z][a-z0-9+.-]*:|//)', re.I)
_call = re.compile(r'(?:specnorm_fastai\.)?(\w+(?:\.\w+)*)(\(.*\))?', re.S)

def _fence(s, lang='text'):
    ticks = max([3] + [1+len(o) for o in re.findall('^ *`+', s, re.M)]) * '`'
    return f'{ticks}{lang}\n{s.rstrip()}\n{ticks}'

def _code(s):
    "In a cell of a table, where pipes in code stand for themselves"
    s = str(s).replace('\n', ' ')
    return f'`{s}`' if '`' not in s else f'`` {s} ``'

def _pipe(s):
    "Text for a cell of a table"
    return ''.join(o if i%2 else o.replace('|', '&#124;') for i,o in enumerate(re.split(r'(`+[^`]*`+)', s.replace('\n', ' '))))

# ---- names

def _name_of(o):
    "A value in a signature, short"
    if o is empty: return ''
    if isinstance(o, enum.Enum): return f'{type(o).__name__}.{o.name}'
    if inspect.isroutine(o) or inspect.isclass(o):
        n = getattr(o, '__qualname__', repr(o))
        return o.__name__ if n.startswith('_') else n
    s = repr(o)
    return re.sub(r' object at 0x[0-9a-f]+|(?<=function )(\w+) at 0x[0-9a-f]+', r'\1', s)

def _anno(o):
    if o is empty or o in (None, type(None), types.FunctionType, types.BuiltinFunctionType): return ''  # taken from a default, which tells no type
    return re.sub(r'\b(?:[A-Za-z_]\w*\.)+(?=\w)', '', o if isinstance(o, str) else inspect.formatannotation(o))

def _words(node):
    "The text of a message in the code; what is computed is `...`"
    if isinstance(node, ast.Constant): return str(node.value)
    if isinstance(node, ast.JoinedStr): return ''.join(_words(v) for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add): return _words(node.left)+_words(node.right)
    return '...'

class _Value(str): __repr__ = str.__str__

def signature(nm, f, skip=0):
    "`nm` with the parameters of `f`, a line each where they are many"
    sig = inspect.signature(f)
    ps = [p.replace(annotation=empty, default=empty if p.default is empty else _Value(_name_of(p.default))) for p in sig.parameters.values()][skip:]
    s = nm+str(sig.replace(parameters=ps, return_annotation=empty))
    if len(s)<=88: return s
    parts = [str(p) for p in ps]  # the marks * and / go with their neighbours
    if (i:=next((i for i,p in enumerate(ps) if p.kind==p.KEYWORD_ONLY), None)) is not None and not any(p.kind==p.VAR_POSITIONAL for p in ps): parts.insert(i, '*')
    lines,line = [],''
    for p in parts:
        if line and len(line)+len(p)>84: lines.append(line); line = ''
        line += (', ' if line else '')+p
    return f'{nm}(\n    '+',\n    '.join([*lines,line])+')'

def _fields(cls):
    "The fields of a `NamedTuple`, as docments gives parameters"
    src = inspect.getsource(cls)
    at,sig = {o.target.id:src.split('\n')[o.end_lineno-1] for o in ast.parse(src).body[0].body if isinstance(o, ast.AnnAssign)},inspect.signature(cls)
    return {k:dict(docment=l.partition('#')[2].strip() or None, anno=sig.parameters[k].annotation, default=sig.parameters[k].default, kind=sig.parameters[k].kind) for k,l in at.items()}

class Symbol:
    "A public name: where it is told of, and what it is"
    def __init__(self, mod, name, obj, node, line, owner=None, level=3):
        self.mod,self.name,self.obj,self.node,self.line,self.owner,self.level = mod,name,obj,node,line,owner,level
        self.cases,self.anchor,self.notes = [node],name.lower(),{}
        self.made = inspect.isclass(obj) and not isinstance(node, ast.ClassDef)  # by a call, not by a class statement
        self.page = mod+'.md'

    @property
    def func(self):
        "What can be called, without what wraps it"
        o = self.obj
        if isinstance(o, (classmethod,staticmethod)): o = o.__func__
        if isinstance(o, property): o = o.fget
        return getattr(o, 'py_func', o)  # numba's

    @property
    def kind(self):
        if isinstance(self.node, ast.ClassDef) or self.made: return 'class'
        if not isinstance(self.node, (ast.FunctionDef,ast.AsyncFunctionDef)): return 'value'
        if isinstance(self.obj, property) or any('as_prop' in ast.unparse(d) or ast.unparse(d) in ('property','cached_property') for d in self.node.decorator_list): return 'property'
        if self.owner and (isinstance(self.obj, classmethod) or any('cls_method' in ast.unparse(d) for d in self.node.decorator_list)): return 'class method'
        if isinstance(self.obj, staticmethod): return 'static method'
        return 'method' if self.owner else 'function'

    @property
    def doc(self):
        if self.kind=='value': return ''
        if self.made: return inspect.cleandoc(self.obj.__doc__ or '')
        return inspect.cleandoc(ast.get_docstring(self.node) or (inspect.getdoc(self.obj) if self.kind!='class' else '') or '')

    @property
    def dispatched(self):
        "The cases that are ours of a function of fastai's, which chooses by type: a line each; else ''"
        if not type(self.obj).__module__.startswith('plum') or self.owner: return ''
        return '\n'.join(f'{self.name}({ast.unparse(o.args)})' for o in self.cases)

    def sig(self):
        "The signature, or None where Python can tell none"
        if self.kind in ('value','property') or _is_enum(self.obj): return None
        if self.dispatched: return self.dispatched
        f = self.func
        try:
            if self.kind=='class':
                g = next((k.__dict__[n] for k in f.__mro__ for n in ('__init__','__new__') if n in k.__dict__ and k.__module__.startswith('specnorm_fastai')), None)
                if g is None or self.made: return signature(self.name, f)
                return signature(self.name, getattr(g, '__func__', g), skip=1)
            return signature(self.name, f, skip=1 if self.owner and self.kind!='static method' else 0)
        except (TypeError,ValueError): return f'{self.name}({ast.unparse(self.node.args)})' if self.kind!='class' else None

    def errors(self):
        "What it raises itself, as (class, message), where `...` stands for what came"
        nodes = [self.node]
        if self.kind=='value': return []
        if self.made: return []
        if self.kind=='class': nodes = [o for o in self.node.body if isinstance(o, ast.FunctionDef) and o.name in ('__init__','__new__')]
        if len(self.cases)>1: nodes = self.cases
        res = {}
        for o in (o for n in nodes for o in ast.walk(n)):
            if not isinstance(o, ast.Raise) or not isinstance(o.exc, ast.Call) or not isinstance(o.exc.func, ast.Name) or not o.exc.args: continue
            if (m:=_words(o.exc.args[0])).strip(' .'): res[o.exc.func.id,html.escape(m, quote=False).replace('\n', ' ').replace('|', '&#124;')] = None
        return list(res)

    def params(self):
        "name -> dict of anno, default, docment"
        if self.kind in ('value','property') or self.dispatched or self.made or _is_enum(self.obj): return {}
        f = self.func
        if self.kind=='class':
            if issubclass(f, tuple) and hasattr(f, '_fields'): return _fields(f)
            f = next((k.__dict__[n] for k in f.__mro__ for n in ('__init__','__new__') if n in k.__dict__ and k.__module__.startswith('specnorm_fastai')), None)
            if f is None: return {}
            f = getattr(f, '__func__', f)
        try: d = docments(f, full=True, args_kwargs=True)
        except Exception as e: raise RuntimeError(f"{self.mod}.{self.name}: its docments cannot be read: {type(e).__name__}: {e}") from e
        return {k:v for k,v in d.items() if k not in ('self','cls')}

def _is_enum(o): return inspect.isclass(o) and issubclass(o, enum.Enum)

def _tops(text):
    "Top-level definitions and assignments of a module or cell, as (name, node); a patched method is `Class.name`"
    for o in ast.parse(text).body:
        if isinstance(o, (ast.FunctionDef,ast.AsyncFunctionDef,ast.ClassDef)):
            n = patch_name(o)
            for n in ([n] if isinstance(n, str) else n): yield n,o
        elif isinstance(o, (ast.Assign,ast.AnnAssign)):
            for t in (o.targets if isinstance(o, ast.Assign) else [o.target]):
                for e in getattr(t, 'elts', [t]):
                    if isinstance(e, ast.Name): yield e.id,o

# what the methods of these names do is told by the classes of fastai, torch and Python whose protocol they are
protocol = set('encodes decodes setups forward backward before_call before_fit after_fit before_epoch after_epoch before_train after_train before_validate after_validate before_batch after_batch before_step after_step after_pred after_loss after_cancel_fit after_cancel_batch name'.split())

def symbols(lib='specnorm_fastai'):
    "Every public name by module: {module: {name: Symbol}}, methods as `Class.name`"
    res = {}
    for fn in sorted((root/lib).glob('[a-z]*.py')):
        if fn.stem=='all': continue
        mod,here = import_module(f'{lib}.{fn.stem}'),{}
        text = fn.read_text(); lines = text.splitlines()
        for n,node in _tops(text):
            own,_,m = n.rpartition('.')
            if m.startswith('_') or own and own not in here and own not in mod.__all__: continue
            if not own and n not in mod.__all__: continue
            if n in here: here[n].cases.append(node); continue
            obj = inspect.getattr_static(getattr(mod, own), m) if own else getattr(mod, n)
            here[n] = Symbol(fn.stem, n, obj, node, node.lineno, own or None, 3)
            if isinstance(node, ast.ClassDef):
                for o in node.body:
                    if isinstance(o, ast.Assign) and isinstance(o.targets[0], ast.Name) and not (k:=o.targets[0].id).startswith('_'):
                        v = inspect.getattr_static(obj, k, None)
                        if inspect.isclass(v) and (v.__module__,v.__qualname__)==(mod.__name__,f'{n}.{k}'): here[f'{n}.{k}'] = Symbol(fn.stem, f'{n}.{k}', v, o, o.lineno, n, 4)
                        elif _is_enum(obj): here[n].notes[k] = ast.unparse(o.value),lines[o.end_lineno-1].partition('#')[2].strip()
                    if not isinstance(o, (ast.FunctionDef,ast.AsyncFunctionDef)) or o.name.startswith('_') or f'{n}.{o.name}' in here: continue
                    s = Symbol(fn.stem, f'{n}.{o.name}', inspect.getattr_static(obj, o.name, None), o, o.lineno, n, 4)
                    if o.name in protocol and not ast.get_docstring(o): continue
                    if any(ast.unparse(d).endswith('.setter') for d in o.decorator_list): continue
                    here[s.name] = s
        if (left:=[n for n in mod.__all__ if n not in here]): raise RuntimeError(f"{fn.name}: __all__ names what no line at the top defines: {left}")
        taken = set()
        for s in here.values():  # anchors as nbdev's index has them; of names that differ in case only, the later one tells its kind
            if s.anchor in taken: s.anchor += '-'+s.kind.replace(' ', '-')
            taken.add(s.anchor)
        res[fn.stem] = here
    return res

# ---- pages

_stars = dict(VAR_POSITIONAL='*', VAR_KEYWORD='**')

class Site:
    "Markdown pages, pictures and the navigation; `problems` says what is wrong"
    def __init__(self, stage):
        self.stage,self.cfg,self.problems,self.raw = Path(stage),get_config(root),[],{}
        self.repo = f'{self.cfg.git_url}/blob/{self.cfg.branch}'
        self.syms = symbols()
        self.by_name = {}
        for here in self.syms.values():
            for n,s in here.items(): self.by_name.setdefault(n, s)
        nbs = sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(o.startswith(('.','_')) for o in p.relative_to(root/'nbs').parts))
        self.nbs = {p:re.sub(r'^\d+[a-z]?_', '', p.stem) for p in nbs if p.parent==root/'nbs' and p.stem!='index'}
        self.guides = {k:[p for p in nbs if p.parent==root/'nbs'/k] for k in guides}
        for v in self.guides.values():
            v.sort(key=lambda p: (order.index(key) if (key:=p.relative_to(root/'nbs').with_suffix('').as_posix()) in order else len(order), p.stem))
        told = {*self.nbs, root/'nbs/index.ipynb', *(p for v in self.guides.values() for p in v)}
        if (left:=[p for p in nbs if p not in told]): raise RuntimeError(f"no section for {[p.relative_to(root).as_posix() for p in left]}: expected nbs/*.ipynb or one of the folders {list(guides)}")
        # path in the repository -> page
        self.pages = {'nbs/index.ipynb':'index.md', 'README.md':'index.md', **{p.relative_to(root).as_posix():f'{n}.md' for p,n in self.nbs.items()},
            **{p.relative_to(root).as_posix():p.relative_to(root/'nbs').with_suffix('.md').as_posix() for v in self.guides.values() for p in v},
            **{t:('results/'+Path(t).parent.name+'.md' if t.endswith('RESULTS.md') else 'project/'+Path(t).name.lower()) for t in texts if (root/t).exists()}}
        self.titles = {}

    def write(self, fn, text):
        (self.stage/fn).parent.mkdir(parents=True, exist_ok=True)
        (self.stage/fn).write_text(text, encoding='utf-8')

    def asset(self, fn, data):
        (self.stage/fn).parent.mkdir(parents=True, exist_ok=True)
        (self.stage/fn).write_bytes(data)

    def links(self, s, src, page):
        "Text of the file `src` with links that fit `page`: other pages, pictures, else the file in the repository"
        def f(m):
            if not m['to'] or _away.match(m['to']): return m[0]
            to,sep,frag = m['to'].partition('#')
            fn = normpath(join(dirname(src), unquote(to)))
            if fn in self.pages: return relpath(self.pages[fn], dirname(page) or '.')+sep+frag
            if not (root/fn).exists(): self.problems.append(f'{src}: link to {to}: no such file'); return m[0]
            if Path(fn).suffix in ('.png','.jpg','.svg','.gif'):
                self.asset(f'images/{fn.replace("/","-")}', (root/fn).read_bytes())
                return relpath(f'images/{fn.replace("/","-")}', dirname(page) or '.')
            return f'{self.repo}/{fn}{sep}{frag}'
        s = _link.sub(f, s)
        # Python-Markdown wants an empty line before a list
        out,fence = [],False
        for l in s.split('\n'):
            if re.match(r' *(```|~~~)', l): fence = not fence
            item = r'([-*+]|\d+\.) '
            if not fence and re.match(item, l) and out and out[-1].strip() and not re.match(item, out[-1]) and not out[-1].startswith(' '): out.append('')
            out.append(l)
        return '\n'.join(out)

    # -- notebooks

    def notebook(self, path):
        src = path.relative_to(root).as_posix()
        page,parts,self._n,heading = self.pages[src],[],0,path.stem
        mod,told = self.nbs.get(path),set()
        if mod not in self.syms: mod = None
        for c in read_nb(path).cells:
            if not c.source.strip() or c.cell_type=='raw' or c.has_directive('default_exp'): continue
            if any(c.directive(o) in ('','true') for o in ('hide',)) and not c.has_directive('export'): continue
            is_exp,alt = c.has_directive('export') or c.has_directive('exports'),(c.directive('fig-alt') or '').strip('"\'')
            c.remove_directives()
            if c.cell_type=='markdown':
                s = c.source
                if s.startswith('---\n'):
                    import yaml
                    d = yaml.safe_load(s.split('---')[1]); s = f"# {d.get('title', path.stem)}\n\n> {d.get('description','')}"
                if hs:=re.findall(r'^#+ +(.*)$', s, re.M): heading = hs[-1]
                if page not in self.titles and (m:=re.match(r'# +(.*)', s)): self.titles[page] = m[1].strip()
                parts.append(self.links(s, src, page))
            else:
                if is_exp and mod: parts += self.exported(c.source, mod, told)
                else: parts.append(_fence(c.source, 'python'))
                for i,o in enumerate(c.get('outputs', [])): parts.append(self.output(o, alt or f'Picture under "{heading}", drawn by the code above', page))
        if mod and (left:=set(self.syms[mod])-told): raise RuntimeError(f'{src}: its cells do not define {sorted(left)}, which specnorm_fastai/{mod}.py does: export first (make export)')
        top = '' if page!='index.md' else '---\nhide: [navigation]\n---\n\n'
        self.write(page, top+'\n\n'.join(p.strip('\n') for p in parts if p.strip())+'\n')

    def output(self, o, alt, page):
        d = {k:''.join(v) if isinstance(v, list) else v for k,v in o.get('data', {}).items()}
        if o.output_type=='stream': txt = ''.join(o.text)
        elif o.output_type=='error': txt = f'{o.ename}: {o.evalue}'
        elif 'image/png' in d:
            self._n += 1
            fn = f"images/{page[:-3].replace('/','-')}-{self._n}.png"
            data = base64.b64decode(d['image/png'])
            self.asset(fn, data)
            w,h = int.from_bytes(data[16:20], 'big'),int.from_bytes(data[20:24], 'big')
            alt = re.sub(r'[`*$\[\]]', '', alt).replace('"', "'")
            return f'![{alt}]({relpath(fn, dirname(page) or ".")}){{ width="{w}" height="{h}" .plot }}'
        elif 'text/html' in d: return self.stash(re.sub(r'<style.*?</style>', '', d['text/html'], flags=re.S), 'output')
        elif 'text/markdown' in d: return d['text/markdown']
        else: txt = d.get('text/plain', '')
        return _fence(_ansi.sub('', txt), '{ .text .output }') if txt.strip() else ''

    def stash(self, s, cls):
        "A place for HTML that Markdown must not touch"
        s = s.replace('class="dataframe"', '').replace(' border="1"', '')
        k = hashlib.sha256(s.encode()).hexdigest()[:16]
        self.raw[k] = f'<div class="{cls}">{s}</div>'
        return f'<p>stash-{k}</p>'

    # -- entries

    def exported(self, code, mod, told):
        "The entries of a cell, and its code folded"
        here,public = self.syms[mod],[]
        tops = [n for n,_ in _tops(code)]
        for n in tops:
            if n in here and n not in told:
                group = [n, *(k for k,s in here.items() if s.owner==n and s.level==4)]
                told.update(group); public += [self.entry(here[k]) for k in group]
        if not tops: return []  # imports
        names = ', '.join(dict.fromkeys(tops)); names = names if len(names)<70 else names[:66].rpartition(',')[0]+' ...'
        body = '\n'.join('    '+l if l else '' for l in _fence(code, 'python').split('\n'))
        return [*public, f'??? code "Code: {names}"\n\n{body}']

    def entry(self, s):
        "The heading, signature, text and table of a name"
        src = f'[source](source/{s.mod}.md#L-{s.line}){{ .src title="{s.mod}.py, line {s.line}" }} [repository]({self.repo}/specnorm_fastai/{s.mod}.py#L{s.line}){{ .src }}'
        out = [f'{"#"*s.level} {s.name} {{ #{s.anchor} .api data-toc-label="{s.name[len(s.owner):] if s.owner and s.level==4 else s.name}" }}', f'*{s.kind}* {src}\n{{ .api-line }}']
        if s.kind=='value': out.append(_fence(ast.unparse(s.node), 'python'))
        elif sig:=s.sig(): out.append(_fence(sig, 'python'))
        if s.doc: out.append(s.doc)
        if s.kind=='class' and (bases:=getattr(s.node, 'bases', [])): out.append('Bases: '+', '.join(_code(ast.unparse(b)) for b in bases))
        if t:=self.table(s): out.append(f'<div class="params" markdown="1">\n\n{t}\n\n</div>')
        if s.notes: out.append('\n'.join(['| member | value | meaning |','|---|---|---|', *(f'| `{s.name}.{k}` | {_code(v)} | {_pipe(m)} |' for k,(v,m) in s.notes.items())]))
        if (es:=s.errors()): out.append('Errors:\n{ .errors }\n\n'+'\n'.join(f'- `{k}`: {m}' for k,m in es))
        return '\n\n'.join(out)

    def table(self, s):
        d = s.params(); ret = d.pop('return', None)
        rows = [(f'`{_stars.get(getattr(v["kind"], "name", ""), "")}{k}`', _anno(v['anno']), '' if v['default'] is empty else _name_of(v['default']), v['docment'] or '') for k,v in d.items() if v['docment'] or getattr(v['kind'], 'name', '') not in ('VAR_POSITIONAL','VAR_KEYWORD')]
        if not any(r[3] for r in rows) and not (ret and ret['docment']): return ''
        if ret and ret['docment']: rows.append(('*returns*', _anno(ret['anno']), '', ret['docment']))
        rows = [(n, t and _code(t), df and _code(df), m.replace('\n',' ')) for n,t,df,m in rows]
        cols = [i for i in range(4) if i in (0,3) or any(r[i] for r in rows)]
        head = ('parameter','type','default','meaning')
        line = lambda r: '| '+' | '.join(r[i] if i!=3 else _pipe(r[i]) for i in cols)+' |'
        return '\n'.join([line(head), '|'+'---|'*len(cols), *map(line, rows)])

    # -- the others

    def api(self):
        "One line for each public name"
        out = ['# All public names', "> Each is in `specnorm_fastai.all`, but for the modules `cli` and `kernels`, which are imported by name",
               'Modules in the order in which data passes them. A name leads to its signature, its parameters, and what its notebook shows of it.']
        for p,mod in self.nbs.items():
            tops = [s for s in self.syms[mod].values() if s.level==3 and not s.owner]
            sub = re.search(r'^> *(.*)$', ''.join(read_nb(p).cells[0].source), re.M)
            out.append(f'## [{mod}]({mod}.md) {{ #module-{mod} }}')
            if sub: out.append(sub[1])
            if tops:
                out.append('\n'.join(['| name | kind | what it is |','|---|---|---|', *(f'| [`{s.name}`]({s.page}#{s.anchor}) | {s.kind} | {_pipe((s.doc or "").splitlines()[0] if s.doc else "")} |' for s in tops)]))
        self.write('api.md', '\n\n'.join(out)+'\n'); self.titles['api.md'] = 'All names'

    def source(self, mod):
        "A highlighted copy of a module"
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer
        text = (root/'specnorm_fastai'/f'{mod}.py').read_text()
        h = highlight(text, PythonLexer(stripnl=False), HtmlFormatter(linenos='inline', linespans='L', cssclass='highlight source', wrapcode=True))
        self.write(f'source/{mod}.md', f'---\nsearch:\n  exclude: true\nhide: [toc]\n---\n\n# {mod}.py\n\nExported from the notebook of [{mod}](../{mod}.md); the same file [in the repository]({self.repo}/specnorm_fastai/{mod}.py).\n\n{self.stash(h, "listing")}\n')

    def text(self, fn):
        page = self.pages[fn]; s = self.links((root/fn).read_text(), fn, page)
        self.titles[page] = texts[fn][1]
        self.write(page, s)

    def make(self):
        shutil.rmtree(self.stage, ignore_errors=True); self.stage.mkdir(parents=True)
        for p in [root/'nbs/index.ipynb', *self.nbs, *(p for v in self.guides.values() for p in v)]: self.notebook(p)
        for mod in self.syms: self.source(mod)
        for fn in texts:
            if fn in self.pages: self.text(fn)
        self.api()
        shutil.copy(root/'nbs/styles.css', self.stage/'styles.css')
        return self

    def nav(self):
        nav = [{'Home':'index.md'}]
        page = lambda p: {self.titles.get(q:=self.pages[p.relative_to(root).as_posix()], p.stem):q}
        nav.append({'Guides':[{title:[page(p) for p in self.guides[k]]} for k,title in guides.items() if self.guides[k]]})
        nav.append({'API':[{'All names':'api.md'}, *({n:f'{n}.md'} for n in self.nbs.values())]})
        for sec in dict.fromkeys(s for s,_ in texts.values()):
            if ps:=[{t:self.pages[fn]} for fn,(s,t) in texts.items() if s==sec and fn in self.pages]: nav.append({sec:ps})
        return nav

    # -- HTML

    def html(self, s, page):
        "Of a page as Markdown made it: stashed HTML, math as MathML, names linked to their entries"
        from latex2mathml.converter import convert
        def math(m):
            tex = html.unescape(m[3]).strip()
            try: return convert(tex, display='block' if m[1]=='div' else 'inline')
            except Exception as e: self.problems.append(f'{page}: formula {tex!r}: {type(e).__name__}: {e}'); return m[0]
        s = re.sub(r'<(div|span) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', math, s, flags=re.S)
        def link(m):
            if not m['code']: return m[0]
            k = _call.fullmatch(html.unescape(m['code']))
            to = k and (self.syms.get(Path(page).stem, {}).get(k[1]) or self.by_name.get(k[1]))
            if to and to.page!=page and k[1].islower() and k[1].isalpha() and not k[2] and (page!='index.md' or to.mod=='cli'): return m[0]  # a plain word, such as `stats`, means more often something else
            if not to: return m[0]
            return f'<a class="sym" href="{relpath(to.page[:-3]+".html", dirname(page) or ".")}#{to.anchor}">{m[0]}</a>'
        s = re.sub(r'<(?P<tag>a|pre|h\d|summary)(?=[\s>]).*?</(?P=tag)>|<tr>\s*<td><code>[^<]*</code></td>|<code>(?P<code>[^<]*)</code>', link, s, flags=re.S)
        s = s.replace('<details class="code">', '<details class="code" data-search-exclude>')
        s = re.sub(r'<div class="(?=[^"]*\bhighlight")', '<div data-search-exclude class="', s)  # the index holds words and names, not code
        s = re.sub(r'<p>stash-([0-9a-f]{16})</p>', lambda m: self.raw[m[1]], s)
        return s

def config(site, dest):
    "The configuration of MkDocs"
    palette = [dict(media=f'(prefers-color-scheme: {k})', scheme=v, primary='teal', accent='teal', toggle=dict(icon=icon, name=f'To {other} colours')) for k,v,icon,other in
               (('light','default','material/weather-night','dark'), ('dark','slate','material/weather-sunny','light'))]
    return dict(site_name=site.cfg.title, site_description=site.cfg.description, docs_dir=str(site.stage), site_dir=str(dest), use_directory_urls=False, strict=True,
        copyright='Apache-2.0', nav=site.nav(), extra_css=['styles.css'],
        theme=dict(name='material', font=False, palette=palette, icon=dict(logo='material/waveform'),
            features='navigation.tabs navigation.top navigation.tracking navigation.indexes navigation.footer toc.follow search.highlight search.suggest content.code.copy content.tooltips'.split()),
        plugins=[dict(search=dict(lang='en', separator=r'[\s\-,:!=\[\]()"`/.]+'))],
        extra=dict(generator=False, social=[dict(icon='fontawesome/brands/github', link=site.cfg.git_url, name='Repository')]),
        validation=dict(nav=dict(omitted_files='ignore', not_found='warn'), links=dict(not_found='warn', anchors='ignore', absolute_links='warn', unrecognized_links='warn')),
        markdown_extensions=['admonition','attr_list','md_in_html','tables','sane_lists',dict(toc=dict(permalink='#', permalink_title='Link to here', toc_depth=4)),'pymdownx.details',
            'pymdownx.superfences',dict([('pymdownx.highlight', dict(use_pygments=True))]),dict([('pymdownx.arithmatex', dict(generic=True))])])

# ---- checks of the finished site

class _Page(HTMLParser):
    def __init__(self):
        super().__init__(); self.ids,self.links,self.bare = set(),[],[]
    def handle_starttag(self, tag, attrs):
        d = dict(attrs)
        if 'id' in d: self.ids.add(d['id'])
        if tag=='a' and 'name' in d: self.ids.add(d['name'])
        for k in ('href','src'):
            if tag!='iframe' and d.get(k) is not None: self.links.append((tag, d[k]))
        if tag=='img' and not d.get('alt'): self.bare.append(d.get('src'))
    handle_startendtag = handle_starttag

def check(dest):
    "Links, anchors and pictures of the site in `dest` that lead nowhere, and what would be asked of other hosts"
    dest,bad = Path(dest),[]
    pages = {p.relative_to(dest).as_posix():_Page() for p in sorted(dest.rglob('*.html'))}
    for n,p in pages.items(): p.feed((dest/n).read_text(encoding='utf-8'))
    for n,p in pages.items():
        bad += [f'{n}: picture {s} has no words' for s in p.bare]
        for tag,to in dict.fromkeys(p.links):
            if _away.match(to):
                if tag!='a' and not to.startswith('data:'): bad.append(f'{n}: <{tag}> asks another host: {to[:80]}')
                continue
            u = urlsplit(to)
            if n=='404.html' and u.path.startswith('/'): continue
            fn = normpath(join(dirname(n), unquote(u.path))) if u.path else n
            if fn=='.' : fn = 'index.html'
            if (dest/fn).is_dir(): fn = normpath(fn+'/index.html')
            if not (dest/fn).is_file(): bad.append(f'{n}: {to}: no such file')
            elif u.fragment and fn in pages and unquote(u.fragment) not in pages[fn].ids: bad.append(f'{n}: {to}: no such anchor')
    return bad

def build(dest=root/'_docs', stage=root/'_proc'/'site'):
    "Make the site in `dest`; a list of problems. What lies there is removed: it must be a site, or nothing"
    if Path(dest).exists() and not (Path(dest)/'search'/'search_index.json').is_file() and (not Path(dest).is_dir() or any(Path(dest).iterdir())):
        raise SystemExit(f"--dest: expected a new or empty folder, or a site made here, got {dest}, which holds other things")
    from mkdocs.commands.build import build as mkdocs_build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort
    from mkdocs.plugins import BasePlugin
    site = Site(stage).make()
    class Names(BasePlugin):
        def on_page_content(self, html, page, config, files): return site.html(html, page.file.src_uri)
    fn = site.stage.parent/f'{site.stage.name}.json'  # YAML reads JSON
    fn.write_text(json.dumps(config(site, dest)))
    caught = []
    class Catch(logging.Handler):
        def emit(self, r): caught.append(r.getMessage())
    log,h = logging.getLogger('mkdocs'),Catch(logging.WARNING)
    log.addHandler(h)
    try:
        cfg = load_config(str(fn))
        cfg.plugins['names'] = Names()
        mkdocs_build(cfg)
    except Abort as e: caught = caught or [str(e)]
    finally: log.removeHandler(h)
    return site.problems + caught + (check(dest) if Path(dest).exists() else [])

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--dest', default=str(root/'_docs'), help='the folder to make (_docs)')
    p.add_argument('--serve', action='store_true', help='serve it on 127.0.0.1 afterwards')
    p.add_argument('--port', type=int, default=8000)
    a = p.parse_args(); t = time.time()
    warnings.filterwarnings('ignore')
    bad = build(Path(a.dest).resolve())
    if bad: sys.exit('\n'.join(bad)+f'\n{len(bad)} problem{"s"[:len(bad)>1]}')
    print(f'{a.dest}: {len(list(Path(a.dest).rglob("*.html")))} pages in {time.time()-t:.0f} s. {"" if a.serve else "Look at them: make docs ARGS=--serve"}')
    if a.serve:
        from http.server import SimpleHTTPRequestHandler,ThreadingHTTPServer
        print(f'http://127.0.0.1:{a.port}, Ctrl-C ends it')
        try: ThreadingHTTPServer(('127.0.0.1', a.port), functools.partial(SimpleHTTPRequestHandler, directory=a.dest)).serve_forever()
        except KeyboardInterrupt: pass

if __name__=='__main__': main()
