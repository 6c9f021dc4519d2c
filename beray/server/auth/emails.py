"""One spelling for each mail address, so that one mailbox is one account."""

import unicodedata

from email_validator import EmailNotValidError, ValidatedEmail, validate_email

from beray.server.errors import Refused, wrong_field

MAX_EMAIL_CHARACTERS = 320  # RFC 3696: 64 + @ + 255; the validator's own limit (254) is below it
SHOWN_CHARACTERS = 80  # of a wrong address, in the error


def normalise_email(raw: str) -> str:
    """The address as it is stored and written to: NFKC, lower case on both sides of the @, no outer spaces.

    RFC 5321 lets a mail server tell `Ann@` from `ann@`; none in use does, and two accounts that differ in case only
    would be a trap. Mail goes to this spelling alone: a look-alike that folds to somebody's address gains nothing.

    Raises:
        Refused: `invalid_email`; control characters, quoted local parts and hosts without a period included.
    """
    if len(raw) > MAX_EMAIL_CHARACTERS:
        raise _invalid(raw)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", raw.strip(" ")).lower())
    try:
        return _validate(folded).normalized
    except EmailNotValidError as error:
        raise _invalid(raw) from error


def envelope_address(email: str) -> str:
    """A normalised address as SMTP wants it: the domain in ASCII (IDNA) where the local part allows that."""
    return _validate(email).ascii_email or email


def _validate(email: str) -> ValidatedEmail:
    return validate_email(email, check_deliverability=False)  # a look-up in DNS would be slow, and fail offline


def _invalid(raw: str) -> Refused:
    shown = raw if len(raw) <= SHOWN_CHARACTERS else raw[:SHOWN_CHARACTERS] + "…"
    return Refused("invalid_email", errors=[wrong_field("email", "invalid_email", email=shown)], email=shown)
