# SPDX-License-Identifier: Apache-2.0
"""What every pattern of the models allows, in words.

Called by manifests, which tells people what to write where a pattern does not match: nobody should have to read a regular
expression. A test demands a sentence for every pattern in the schemas. Refuses nothing itself.
"""

from __future__ import annotations

from outrider.resources import fields, injection, oauth, urls

CONTROL_FREE = r"^[^\x00-\x1f\x7f-\x9f]*$"
CONTROL_FREE_SOME = r"^[^\x00-\x1f\x7f-\x9f]+$"
PRINTABLE = r"^[\x20-\x7e]*$"

_LINE = "one line of text: no line break, tab or other control character"
_LETTERS = "lower-case letters, digits and hyphens, beginning and ending with a letter or digit"

FORMS: dict[str, str] = {
    fields.LABEL_PATTERN: f"a name of {_LETTERS}, such as sales-agents",
    fields.ACCOUNT_PATTERN: "a ServiceAccount, written NAME or NAMESPACE/NAME, such as sales-agents/quote-bot",
    fields.FULL_ACCOUNT_PATTERN: "a ServiceAccount, written NAMESPACE/NAME, such as sales-agents/quote-bot",
    fields.TARGET_PATTERN: f'a name of {_LETTERS}, or "*" for all',
    fields.GLOB_PATTERN: "a tool's name, or a pattern of names such as get_*: letters, digits, _ . - and * only",
    fields.ANY_GLOB_PATTERN: "a name, or a pattern of names such as get_*: "
    "not empty, on one line, without control characters",
    fields.URI_GLOB_PATTERN: "a resource's URI, or a pattern of URIs such as file:///docs/*: "
    "1 to 512 characters without spaces, backslashes and control characters",
    fields.HOST_PATTERN: "a host name such as login.example.com: lower case, without scheme, port and path",
    fields.TOOL_PATTERN: "a tool's exact name: letters, digits, _ . and - only",
    fields.DURATION_PATTERN: "a duration such as 500ms, 3s or 10m: a whole number and its unit, never zero",
    fields.AMOUNT_PATTERN: 'a decimal number in quotes such as "25" or "0.005": not negative, '
    "at most 12 digits before the point and 6 after it",
    fields.POINTER_PATTERN: "a JSON pointer such as /customer/name: it begins with a slash",
    fields.HEADER_PATTERN: "a header's name such as X-Api-Version: letters, digits and hyphens, without spaces or colon",
    fields.PRINCIPAL_PATTERN: "a user, group or client with its identity provider, written PROVIDER:VALUE, such as okta:sales; "
    "no patterns, so without *",
    fields.PATH_PATTERN: "a path such as salesforce or db/creds/readonly: letters, digits, _ . - and /, no part beginning with a point",
    oauth.ISSUING_PATTERN: "the path of an engine, its operation and the role, such as pki/issue/agent: letters, digits, _ . - and /, "
    "no part beginning with a point",
    fields.VISIBLE_PATTERN: "text of visible ASCII characters, without spaces",
    urls.PATTERN: "a URL such as https://crm.example/mcp: http or https, a host, perhaps port, path and query; "
    "no user, no #fragment, no spaces",
    urls.PRIVATE_PATTERN: "an https URL such as https://login.example/keys (http only to this machine itself), for whoever is on the "
    "way could read and change what passes: a host, perhaps port, path and query; no user, no #fragment, no spaces",
    urls.ORIGIN_PATTERN: "an https address such as https://vault.example:8200 (http only to this machine itself), for whoever is on "
    "the way could read and change what passes: a host, perhaps a port, and no path",
    urls.PATH_PATTERN: "a path such as /mcp: it begins with a slash, without query, spaces and quotes",
    injection.QUANTITY_PATTERN: "a quantity in quotes such as 250m, 96Mi or 2: a number, perhaps with its unit",
    injection.IMAGE_PATTERN: "an image such as registry.example/outrider-sidecar:1.2 or one with a digest",
    CONTROL_FREE: _LINE,
    CONTROL_FREE_SOME: f"{_LINE}; not empty",
    PRINTABLE: "text of printable ASCII characters",
    r"^[^\x00-\x1f\x7f]+$": "a file's path, not empty and without control characters",
    r"^[A-Za-z0-9.+_-]*$": "a version such as 2.3.1: letters, digits, . + _ and - only",
    r"^(Auto|[0-9]{4}-[0-9]{2}-[0-9]{2})$": "Auto, or the date of an MCP revision such as 2025-11-25",
    r"^[A-Za-z][A-Za-z0-9_+/-]*$": "an IANA time zone such as Europe/Berlin",
    r"^\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?$": "a DNS suffix with its leading point, such as .corp.example, in lower case",
    r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$": "the name of a key of a secret, such as token: letters, digits, _ . and -, "
    "not beginning with a point",
    r"^[\x21\x23-\x5b\x5d-\x7e]+$": "a scope of OAuth such as crm.read: visible ASCII, without quotes and backslashes",
    r"^[a-z][a-z0-9+.-]*:[\x21\x24-\x5b\x5d\x5f\x61-\x7a\x7e]+$": "a URI such as https://crm.example/mcp: with its scheme, "
    "without #fragment, spaces and quotes",
    r"^[A-Za-z0-9][A-Za-z0-9._@-]*$": "a common name such as agents.crm.example: letters, digits, . _ @ and -",
    r"^[^\x00-\x20\x7f-\xa0]+$": "the name of a claim, such as groups: without spaces and control characters",
    r"^[A-Z]{3}$": "a currency of three capital letters (ISO 4217), such as EUR",
}
"""Pattern -> what it allows, to be read after "must be"."""
