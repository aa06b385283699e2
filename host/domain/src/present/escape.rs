//! Texts of strangers on their way to a terminal.

/// The most characters that [`clip`] leaves of a text.
const MAX_CLIPPED: usize = 200;

/// The text with every character escaped that would do something else than be seen.
pub fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), push)
}

/// The same, and no longer than an error message has room for.
pub fn clip(text: &str) -> String {
    let mut characters = text.chars();
    let mut shown = characters.by_ref().take(MAX_CLIPPED).fold(String::new(), push);
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

fn push(mut shown: String, character: char) -> String {
    if acts(character) {
        shown.extend(character.escape_default());
    } else {
        shown.push(character);
    }
    shown
}

/// Control characters, and those of Unicode that turn the direction of writing, break lines or
/// take no room.
pub fn acts(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}
