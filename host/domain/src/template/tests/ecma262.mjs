// Writes ecma262.json, the table that `tests/ecma262.rs` holds the host's patterns against:
//     node ecma262.mjs > ecma262.json
// Made with Node 20. No build and no test runs this.

const patterns = String.raw`
^a.b$
^.$
^[^a]$
^[a-z]+$
^\<[a-z]+\>$
^\-?\d+$
^[a-z0-9\-\.\/]+$
\bab\b
\Bb
^\B$
\b
^\w+$
^\W+$
^[\w-]+$
^[^\W_]+$
^\d+$
^\D$
^[\D]$
^[^\D]$
^\s$
^\S$
^[\s]$
^[^\s]$
^[\S]$
^[\s\S]$
^[^\s\S]$
^[\d\D]$
^[^]$
[]
^[]$
^[^]*$
^\0$
^[\0-\x1f]$
^[\b]$
^[a\b]$
^\/$
^a\/b$
^\cA$
^\cj$
^[\cA-\cZ]$
^\x41$
^\u0041$
^\u{41}$
^\u{0000041}$
^\u{1F600}$
^\uD83D\uDE00$
^[\uD83D\uDE00]$
^[\uD83D\uDE00-\u{1F64F}]$
\uD83D
^[\uD800-\uDFFF]$
^[^\uD800-\uDFFF]$
^[\uD7FF-\uE000]$
^[\u0000-\u{10FFFF}]$
^[^\u0000-\uD7FF\uE000-\uFFFF]$
^[^\uE000\uD7FF]$
^[^\p{L}\u0000-\uD7FF\uE000-\u{10FFFF}]$
^😀$
^[😀a]$
^.😀?$
^\p{L}$
^\P{L}$
^\p{Lu}$
^\p{Letter}$
^\p{gc=Lu}$
^\p{General_Category=Uppercase_Letter}$
^[\p{Lu}\p{Nd}]$
^[^\p{L}]$
^\p{Script=Greek}$
^\p{sc=Grek}$
^\p{Script_Extensions=Greek}$
^\p{scx=Cyrl}$
^\p{ASCII}$
^\p{Any}$
^\p{Alphabetic}$
^\p{White_Space}$
^\p{Cs}$
^\P{Cs}$
\p{greek}
\p{Greek}
\p{lu}
\p{L
\p{Foo}
\p{Script=Foo}
\p{IsGreek}
\pL
$
^$
^
^ab$
ab$
^a$|^b$
^(?:ab)+$
^(ab)+$
^(?<word>ab)+$
^(?<w>a)|(?<v>b)$
(?<a>x)(?<a>y)
(?<1>x)
(?P<n>x)
(?i)a
(?#x)a
^a{2}$
^a{2,}$
^a{0,1}$
^a{00002}$
^a{2}?$
^(a+)+$
^(a|aa)+$
^(?:a*)*$
^(?:a?){3}$
a{2,1}
a{
a{,5}
{1}
a**
a+*
^*
\b+
*
(
)
[
]
}
[z-a]
[\w-a]
[a-\w]
^[a-]+$
^[-a]+$
^[a-c-]+$
^[a\-c]+$
^[]a]$
^[\]a]$
^[a&&b]+$
^[a--b]$
^[a~~b]$
^[[a]$
^[\[a]$
^[a^]$
^[.]$
^[$]$
^[|]$
^[(]$
^[#]$
^a b$
^a#b$
^\#$
^\ $
^\_$
^\"$
^\'$
^\:\;\,$
^\@\!\%\&\~$
^\^\$\\\.\*\+\?\(\)\[\]\{\}\|$
\a
\e
\A
\z
\Z
\Q
\h
\1
\01
\8
\x4
\xZZ
\u123
\u{110000}
\u{}
\c
\c1
\k
\p
^\t$
^\n$
^\v$
^\f$
^\r$
^a|b|$
|
^(?:|a)$
()
^()$
^K$
^k$
^ſ$
^[K]$
^\u212A$
^é$
^[à-ý]$
^ß$
^[А-я]+$
^日本$
^.{2}$
^[\u2028\u2029]$
^\u2028$
^\ufeff$
^https?:\/\/[^\s\/$.?#].[^\s]*$
^([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])(\.[a-z0-9]+)*:\d{2,5}$
^[0-9a-fA-F]{8}\-[0-9a-fA-F]{4}$
^(?:\d{1,3}\.){3}\d{1,3}$
^[\x00-\x7f]*$
^[^\x00-\x7f]+$
^[^\n]*$
^[\r\n]+$
^.*$
^.+$
`.slice(1, -1).split('\n');

// Refused by the host although they are valid, with a reason that says so.
const refused = String.raw`
(?=a)
(?!a)
(?<=a)b
(?<!a)b
^(?=.*\d)(?=.*[a-z]).{8,}$
^(?!www)
(a)\1
\1(a)
(?<x>a)\k<x>
`.slice(1, -1).split('\n');

const texts = [
  '', 'a', 'b', 'ab', 'abc', 'aab', 'aa', 'aaa', 'aaaa', 'ba', 'ac', 'A', 'B', 'AB', 'K', 'k', 'z', 'x', 'xy', 'é', 'éb',
  'bé', 'aé', 'ß', 'ñ', 'à', 'ÿ', 'Ω', 'ω', 'Я', 'я', 'Ё', 'Привет', '日', '日本', 'ª', 'ſ', '\u212a', '٣', '²', 'Ⅷ',
  '0', '7', '42', '-1', '-', '--', '_', 'a_b', 'a-b', 'a b', 'a#b', 'a.b', 'a/b', '/', '.', ',', ':;,', '@!%&~',
  '<abc>', 'abc>', '<ABC>', '<>', '\\', '\\<abc\\>', '^$\\.*+?()[]{}|', '^', '$', '|', '(', '[', ']', '[a]', '{', '}',
  '#', '"', '\'', '&', '~', ' ', '  ', '\t', '\n', '\v', '\f', '\r', '\r\n', '\0', '\x01', '\x08', '\x0b', '\x1a', '\x1f',
  '\x1c', '\x7f', '\x85', '\xa0', '\u1680', '\u180e', '\u2000', '\u200a', '\u200b', '\u200d', '\u2028', '\u2029', '\u202f',
  '\u205f', '\u3000', '\ufeff', '\ufffd', '\uffff', '\ud7ff', '\ue000', '😀', '😀a', 'a😀', '🙏', '\u{10ffff}', '\u{10000}',
  'a\n', '\na', 'ab\n', 'a\nb', 'a\rb', 'a\u2028b', 'a\u2029b', 'a\x85b', 'a b\n', 'ab ab', 'a ab b', 'pL', 'p{L}', 'u{41}',
  'https://example.com/x', 'http://a b', 'vpn.example.com:443', '-a:80', 'a-b:80', '10.0.0.1', '10.0.0', '12345678-abcd',
  'www.x', 'aA1aaaaa', 'c1', 'k<x>', 'aa1',
];

// A backslash before punctuation that needs none is no syntax under `u`, but schemas have it.
function withoutNeedlessEscapes(pattern) {
  let out = '', inClass = false;
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i];
    if (c === '\\' && i + 1 < pattern.length) {
      const next = pattern[++i];
      const needed = /[A-Za-z0-9^$\\.*+?()[\]{}|\/]/.test(next) || (inClass && next === '-');
      out += needed ? c + next : next;
      continue;
    }
    if (c === '[') inClass = true;
    if (c === ']') inClass = false;
    out += c;
  }
  return out;
}

function row(pattern) {
  let engine;
  try {
    engine = new RegExp(withoutNeedlessEscapes(pattern), 'u');
  } catch {
    return { pattern, matches: null };
  }
  return { pattern, matches: texts.map((text) => (engine.test(text) ? '1' : '0')).join('') };
}

const line = (value) => JSON.stringify(value).replace(/[\u007f-\uffff]/g,
  (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
console.log(`{\n"texts": ${line(texts)},\n"refused": ${line(refused)},\n"patterns": [\n`
  + `${patterns.map((pattern) => line(row(pattern))).join(',\n')}\n]}`);
