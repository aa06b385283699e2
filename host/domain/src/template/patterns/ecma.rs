//! From a pattern of ECMA 262 with the flag `u`, which JSON Schema prescribes, to one of the linear
//! engine that matches the same texts. Every atom is written anew, so nothing is left to what the
//! two dialects call by the same name and mean differently.
//!
//! The input is valid: [`super::is_regular_expression`] has accepted it. A backslash before
//! punctuation that needs none is accepted as well; it means that character.
//! Not covered: groups that look around, back-references, and flags inside a pattern.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use super::{Fault, property};

/// `LineTerminator`: what `.` does not match.
const NOT_A_LINE_END: &str = r"[^\x{A}\x{D}\x{2028}\x{2029}]";

const DIGIT: &[(u32, u32)] = &[(0x30, 0x39)];

/// Without the flag `i`, word characters are ASCII also under `u`.
const WORD: &[(u32, u32)] = &[(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)];

/// `WhiteSpace` and `LineTerminator`.
const SPACE: &[(u32, u32)] = &[
    (0x09, 0x0D),
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
];

const SURROGATES: (u32, u32) = (0xD800, 0xDFFF);
const LAST: u32 = 0x10_FFFF;

/// The same pattern for the linear engine.
pub(super) fn translate(pattern: &str) -> Result<String, Fault> {
    let mut reader = Reader { rest: pattern.chars().peekable(), out: String::new() };
    while let Some(next) = reader.rest.next() {
        match next {
            '\\' => reader.escape()?,
            '[' => reader.class()?,
            '(' => reader.group()?,
            '.' => reader.out.push_str(NOT_A_LINE_END),
            '{' => reader.counts()?,
            // Without flags, both mean the very beginning and the very end in both dialects.
            ')' | '|' | '*' | '+' | '?' | '^' | '$' => reader.out.push(next),
            literal => reader.character(u32::from(literal)),
        }
    }
    Ok(reader.out)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
}

/// One item of a class.
enum Atom {
    /// A code point, perhaps a surrogate.
    Point(u32),
    /// Several, already written.
    Set(String),
}

impl Reader<'_> {
    fn next(&mut self) -> Result<char, Fault> {
        self.rest.next().ok_or(Fault::NotRegular)
    }

    fn eat(&mut self, expected: char) -> bool {
        self.rest.next_if_eq(&expected).is_some()
    }

    /// A single code point outside a class.
    fn character(&mut self, point: u32) {
        if char::from_u32(point).is_some() {
            write_point(&mut self.out, point);
        } else {
            // A text has no half of a pair, so nothing matches one.
            self.set(false, "");
        }
    }

    fn set(&mut self, negated: bool, items: &str) {
        // The engine has no empty class; its complement is that of everything.
        let (negated, items) =
            if items.is_empty() { (!negated, r"\x{0}-\x{10FFFF}") } else { (negated, items) };
        self.out.push_str(if negated { "[^" } else { "[" });
        self.out.push_str(items);
        self.out.push(']');
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.next()? {
            'b' => self.out.push_str(r"(?-u:\b)"),
            'B' => self.out.push_str(r"(?-u:\B)"),
            '1'..='9' | 'k' => return Err(Fault::BackReference),
            other => match self.escaped(other)? {
                Atom::Point(point) => self.character(point),
                Atom::Set(items) => self.set(false, &items),
            },
        }
        Ok(())
    }

    /// What an escape means that is allowed both inside a class and outside.
    fn escaped(&mut self, letter: char) -> Result<Atom, Fault> {
        let point = match letter {
            'd' => return Ok(set(DIGIT)),
            'D' => return Ok(complement(DIGIT)),
            'w' => return Ok(set(WORD)),
            'W' => return Ok(complement(WORD)),
            's' => return Ok(set(SPACE)),
            'S' => return Ok(complement(SPACE)),
            'p' | 'P' => return self.property(letter == 'P').map(Atom::Set),
            'f' => 0x0C,
            'n' => 0x0A,
            'r' => 0x0D,
            't' => 0x09,
            'v' => 0x0B,
            '0' => 0,
            'c' => u32::from(self.next()?) % 32,
            'x' => self.hex(2)?,
            'u' => self.unicode()?,
            other => u32::from(other),
        };
        Ok(Atom::Point(point))
    }

    fn hex(&mut self, digits: usize) -> Result<u32, Fault> {
        let mut value = 0;
        for _ in 0..digits {
            value = value * 16 + self.next()?.to_digit(16).ok_or(Fault::NotRegular)?;
        }
        Ok(value)
    }

    /// After `\u`: a code point in braces, four digits, or two halves of a pair.
    fn unicode(&mut self) -> Result<u32, Fault> {
        if self.eat('{') {
            let mut value: u32 = 0;
            while !self.eat('}') {
                value = value.saturating_mul(16).saturating_add(self.hex(1)?);
            }
            return if value <= LAST { Ok(value) } else { Err(Fault::NotRegular) };
        }
        let first = self.hex(4)?;
        if !(0xD800..=0xDBFF).contains(&first) {
            return Ok(first);
        }
        let mut ahead = Reader { rest: self.rest.clone(), out: String::new() };
        if ahead.eat('\\')
            && ahead.eat('u')
            && let Ok(second @ 0xDC00..=0xDFFF) = ahead.hex(4)
        {
            self.rest = ahead.rest;
            return Ok(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00));
        }
        Ok(first)
    }

    fn property(&mut self, negated: bool) -> Result<String, Fault> {
        let mut name = String::new();
        if !self.eat('{') {
            return Err(Fault::NotRegular);
        }
        while !self.eat('}') {
            name.push(self.next()?);
        }
        property::translate(&name, negated).ok_or(Fault::UnknownProperty)
    }

    fn class(&mut self) -> Result<(), Fault> {
        let negated = self.eat('^');
        let mut items = String::new();
        let (mut below, mut above) = (false, false);
        while !self.eat(']') {
            let start = self.class_atom()?;
            let range = self.rest.peek() == Some(&'-') && {
                let mut ahead = self.rest.clone();
                ahead.next();
                ahead.next() != Some(']')
            };
            if !range {
                match start {
                    Atom::Point(point) => {
                        below |= point == SURROGATES.0 - 1;
                        above |= point == SURROGATES.1 + 1;
                        write_range(&mut items, point, point);
                    }
                    Atom::Set(set) => items.push_str(&set),
                }
                continue;
            }
            self.next()?;
            match (start, self.class_atom()?) {
                (Atom::Point(first), Atom::Point(last)) if first <= last => {
                    below |= (first..=last).contains(&(SURROGATES.0 - 1));
                    above |= (first..=last).contains(&(SURROGATES.1 + 1));
                    write_range(&mut items, first, last);
                }
                _ => return Err(Fault::NotRegular),
            }
        }
        if below && above {
            // What the engine makes of two ranges that meet at the surrogates is wrong once they
            // are negated; with this they are one.
            write_range(&mut items, SURROGATES.0 - 1, SURROGATES.1 + 1);
        }
        self.set(negated, &items);
        Ok(())
    }

    fn class_atom(&mut self) -> Result<Atom, Fault> {
        match self.next()? {
            '\\' => match self.next()? {
                'b' => Ok(Atom::Point(0x08)),
                letter => self.escaped(letter),
            },
            literal => Ok(Atom::Point(u32::from(literal))),
        }
    }

    /// What a group captures is of no use to a yes or no.
    fn group(&mut self) -> Result<(), Fault> {
        self.out.push_str("(?:");
        if !self.eat('?') {
            return Ok(());
        }
        match self.next()? {
            ':' => Ok(()),
            '=' | '!' => Err(Fault::LookAround),
            '<' => {
                if matches!(self.rest.peek(), Some('=' | '!')) {
                    return Err(Fault::LookAround);
                }
                while self.next()? != '>' {}
                Ok(())
            }
            _ => Err(Fault::Flags),
        }
    }

    /// After `{`: the counts of a repetition, without the zeros in front, however many.
    fn counts(&mut self) -> Result<(), Fault> {
        let mut counts = vec![String::new()];
        loop {
            match self.next()? {
                '}' => break,
                ',' => counts.push(String::new()),
                digit => counts.last_mut().ok_or(Fault::NotRegular)?.push(digit),
            }
        }
        let plain: Vec<&str> = counts
            .iter()
            .map(|count| match count.trim_start_matches('0') {
                "" if !count.is_empty() => "0",
                plain => plain,
            })
            .collect();
        let _ = write!(self.out, "{{{}}}", plain.join(","));
        Ok(())
    }
}

fn set(ranges: &[(u32, u32)]) -> Atom {
    let mut items = String::new();
    for (first, last) in ranges {
        write_range(&mut items, *first, *last);
    }
    Atom::Set(items)
}

/// Everything but sorted ranges.
fn complement(ranges: &[(u32, u32)]) -> Atom {
    let mut items = String::new();
    let mut from = 0;
    for (first, last) in ranges {
        if from < *first {
            write_range(&mut items, from, first - 1);
        }
        from = last + 1;
    }
    write_range(&mut items, from, LAST);
    Atom::Set(items)
}

/// A range of code points as an item of a class. The engine's ranges leave surrogates out, but
/// cannot begin or end with one.
fn write_range(items: &mut String, first: u32, last: u32) {
    let (low, high) = SURROGATES;
    let first = if (low..=high).contains(&first) { high + 1 } else { first };
    let last = if (low..=high).contains(&last) { low - 1 } else { last };
    if first > last {
        return;
    }
    write_point(items, first);
    if first < last {
        items.push('-');
        write_point(items, last);
    }
}

fn write_point(out: &mut String, point: u32) {
    match char::from_u32(point) {
        Some(plain) if plain.is_ascii_alphanumeric() => out.push(plain),
        _ => {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{{{point:X}}}");
        }
    }
}
