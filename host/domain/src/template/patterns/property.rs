//! Names of Unicode properties as ECMA 262 spells them: exactly, and scripts only with `Script=`.
//! The engine is more lenient, so a name is looked up here first.

/// General categories: the short name and the long ones.
const CATEGORIES: &str = "\
    C Other|Cc Control cntrl|Cf Format|Cn Unassigned|Co Private_Use|L Letter|LC Cased_Letter|\
    Ll Lowercase_Letter|Lm Modifier_Letter|Lo Other_Letter|Lt Titlecase_Letter|\
    Lu Uppercase_Letter|M Mark Combining_Mark|Mc Spacing_Mark|Me Enclosing_Mark|\
    Mn Nonspacing_Mark|N Number|Nd Decimal_Number digit|Nl Letter_Number|No Other_Number|\
    P Punctuation punct|Pc Connector_Punctuation|Pd Dash_Punctuation|Pe Close_Punctuation|\
    Pf Final_Punctuation|Pi Initial_Punctuation|Po Other_Punctuation|Ps Open_Punctuation|\
    S Symbol|Sc Currency_Symbol|Sk Modifier_Symbol|Sm Math_Symbol|So Other_Symbol|Z Separator|\
    Zl Line_Separator|Zp Paragraph_Separator|Zs Space_Separator";

/// Surrogates, of which a text has none.
const SURROGATE: [&str; 2] = ["Cs", "Surrogate"];

/// Properties that a character has or has not.
const BINARY: &str = "ASCII ASCII_Hex_Digit AHex Alphabetic Alpha Any Assigned Bidi_Control Bidi_C \
    Bidi_Mirrored Bidi_M Case_Ignorable CI Cased Changes_When_Casefolded CWCF \
    Changes_When_Casemapped CWCM Changes_When_Lowercased CWL Changes_When_NFKC_Casefolded CWKCF \
    Changes_When_Titlecased CWT Changes_When_Uppercased CWU Dash Default_Ignorable_Code_Point DI \
    Deprecated Dep Diacritic Dia Emoji Emoji_Component EComp Emoji_Modifier EMod \
    Emoji_Modifier_Base EBase Emoji_Presentation EPres Extended_Pictographic ExtPict Extender Ext \
    Grapheme_Base Gr_Base Grapheme_Extend Gr_Ext Hex_Digit Hex IDS_Binary_Operator IDSB \
    IDS_Trinary_Operator IDST ID_Continue IDC ID_Start IDS Ideographic Ideo Join_Control Join_C \
    Logical_Order_Exception LOE Lowercase Lower Math Noncharacter_Code_Point NChar Pattern_Syntax \
    Pat_Syn Pattern_White_Space Pat_WS Quotation_Mark QMark Radical Regional_Indicator RI \
    Sentence_Terminal STerm Soft_Dotted SD Terminal_Punctuation Term Unified_Ideograph UIdeo \
    Uppercase Upper Variation_Selector VS White_Space space XID_Continue XIDC XID_Start XIDS";

/// `\p{name}` or, negated, `\P{name}` as an item of a class; `None` for a name that is not known.
pub(super) fn translate(name: &str, negated: bool) -> Option<String> {
    let letter = if negated { 'P' } else { 'p' };
    let item = |name: &str| format!("\\{letter}{{{name}}}");
    let (property, value) = match name.split_once('=') {
        Some((property, value)) => (property, value),
        None if is_category(name) => ("gc", name),
        None => {
            return BINARY.split_ascii_whitespace().any(|known| known == name).then(|| item(name));
        }
    };
    match property {
        "General_Category" | "gc" if SURROGATE.contains(&value) => {
            Some(if negated { r"\x{0}-\x{10FFFF}".to_owned() } else { String::new() })
        }
        "General_Category" | "gc" => is_category(value).then(|| item(&format!("gc={value}"))),
        // Where no script of that name exists, compiling says so.
        "Script" | "sc" => is_script(value).then(|| item(&format!("sc={value}"))),
        "Script_Extensions" | "scx" => is_script(value).then(|| item(&format!("scx={value}"))),
        _ => None,
    }
}

fn is_category(name: &str) -> bool {
    SURROGATE.contains(&name)
        || CATEGORIES.split('|').any(|names| names.split(' ').any(|known| known == name))
}

/// Whether a name is spelled as scripts are.
fn is_script(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.split('_').all(|word| !word.is_empty())
}
