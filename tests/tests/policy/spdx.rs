//! SPDX licence expressions (SPDX 2.3, annex D), as far as crates use them:
//! identifiers, `WITH`, `AND`, `OR`, parentheses, and the `/` of old crates,
//! which means `OR`.

/// Whether `expression` can be met with licences that `allowed` accepts. A
/// licence with an exception is handed over whole, as in
/// `Apache-2.0 WITH LLVM-exception`.
///
/// # Errors
/// What is wrong with the expression.
pub fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut tokens = spaced.split_whitespace().peekable();
    let result = alternatives(&mut tokens, allowed)?;
    match tokens.next() {
        None => Ok(result),
        Some(token) => Err(format!("{token:?} is out of place in {expression:?}")),
    }
}

type Tokens<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn alternatives(tokens: &mut Tokens, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let mut result = conjunction(tokens, allowed)?;
    while tokens.next_if_eq(&"OR").is_some() {
        result |= conjunction(tokens, allowed)?;
    }
    Ok(result)
}

fn conjunction(tokens: &mut Tokens, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let mut result = licence(tokens, allowed)?;
    while tokens.next_if_eq(&"AND").is_some() {
        result &= licence(tokens, allowed)?;
    }
    Ok(result)
}

fn licence(tokens: &mut Tokens, allowed: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    match tokens.next() {
        Some("(") => {
            let result = alternatives(tokens, allowed)?;
            match tokens.next() {
                Some(")") => Ok(result),
                _ => Err("a parenthesis is not closed".into()),
            }
        }
        None | Some(")" | "AND" | "OR" | "WITH") => Err("a licence is missing".into()),
        Some(identifier) => {
            if tokens.next_if_eq(&"WITH").is_none() {
                return Ok(allowed(identifier));
            }
            let exception = tokens.next().ok_or("an exception is missing")?;
            Ok(allowed(&format!("{identifier} WITH {exception}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::satisfied;

    fn permissive(licence: &str) -> bool {
        ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&licence)
    }

    #[test]
    fn and_binds_tighter_than_or() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0 AND MIT", false),
            ("MIT OR ISC AND GPL-3.0", true),
            ("(MIT OR ISC) AND GPL-3.0", false),
            ("ISC AND (GPL-3.0 OR MIT)", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("MIT WITH LLVM-exception", false),
        ] {
            assert_eq!(
                satisfied(expression, &permissive),
                Ok(expected),
                "{expression}"
            );
        }
    }

    #[test]
    fn a_broken_expression_is_an_error_and_not_a_permission() {
        for expression in [
            "", "MIT OR", "(MIT", "MIT ISC", "AND MIT", "MIT)", "MIT WITH",
        ] {
            assert!(
                satisfied(expression, &permissive).is_err(),
                "{expression:?}"
            );
        }
    }
}
