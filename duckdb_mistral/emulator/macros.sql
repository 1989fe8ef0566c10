-- What several echoes have in common.

-- The text of a message's content: a string, or a list of chunks of which some have a text. (Arrows would be read as
-- lambdas where these macros are used within one.)
CREATE TEMP MACRO content_text(content) AS
  CASE json_type(content)
    WHEN 'VARCHAR' THEN json_extract_string(content, '$')
    WHEN 'ARRAY' THEN array_to_string(json_extract_string(content, '$[*].text'), '')
    ELSE ''
  END;

-- The texts of an input that is one text or a list of them.
CREATE TEMP MACRO input_texts(input) AS
  CASE json_type(input)
    WHEN 'VARCHAR' THEN [input->>'$']
    WHEN 'ARRAY' THEN input->>'$[*]'
  END;

-- Whether a text asks for something in double brackets.
CREATE TEMP MACRO asks(text, directive) AS contains(text, '[[' || directive || ']]');

-- Tokens are words here.
CREATE TEMP MACRO tokens(text) AS len(string_split(text, ' '));

CREATE TEMP MACRO first_tokens(text, most) AS array_to_string(string_split(text, ' ')[1:most], ' ');

CREATE TEMP MACRO usage(prompt_tokens, completion_tokens) AS {
  'prompt_tokens': prompt_tokens,
  'completion_tokens': completion_tokens,
  'total_tokens': prompt_tokens + completion_tokens
};

-- A number from 0 to 999 that belongs to a text.
CREATE TEMP MACRO per_mille(text) AS (md5_number_lower(text) % 1000)::INTEGER;

CREATE TEMP MACRO moderation_score(text, category) AS
  CASE WHEN asks(text, category) THEN 0.99 ELSE per_mille(category || text) / 100000 END;

-- A category applies where the text names it in double brackets.
CREATE TEMP MACRO moderation(text) AS {
  'categories': {
    'sexual': asks(text, 'sexual'),
    'hate_and_discrimination': asks(text, 'hate_and_discrimination'),
    'violence_and_threats': asks(text, 'violence_and_threats'),
    'dangerous_and_criminal_content': asks(text, 'dangerous_and_criminal_content'),
    'selfharm': asks(text, 'selfharm'),
    'health': asks(text, 'health'),
    'financial': asks(text, 'financial'),
    'law': asks(text, 'law'),
    'pii': asks(text, 'pii')
  },
  'category_scores': {
    'sexual': moderation_score(text, 'sexual'),
    'hate_and_discrimination': moderation_score(text, 'hate_and_discrimination'),
    'violence_and_threats': moderation_score(text, 'violence_and_threats'),
    'dangerous_and_criminal_content': moderation_score(text, 'dangerous_and_criminal_content'),
    'selfharm': moderation_score(text, 'selfharm'),
    'health': moderation_score(text, 'health'),
    'financial': moderation_score(text, 'financial'),
    'law': moderation_score(text, 'law'),
    'pii': moderation_score(text, 'pii')
  }
};

-- One target with two labels, whose scores belong to the text.
CREATE TEMP MACRO classification(text) AS {
  'echo': {'scores': {'positive': per_mille(text) / 1000, 'negative': 1 - per_mille(text) / 1000}}
};

-- The pages that a text such as '0,2-4' names; at most a thousand of each range.
CREATE TEMP MACRO first_page(part) AS TRY_CAST(split_part(part, '-', 1) AS INTEGER);

CREATE TEMP MACRO last_page(part) AS
  least(coalesce(TRY_CAST(split_part(part, '-', 2) AS INTEGER), first_page(part)), first_page(part) + 999);

CREATE TEMP MACRO page_numbers(text) AS
  flatten(list_transform(string_split(text, ','), lambda part: range(first_page(part), last_page(part) + 1)));

-- Numbers from -1 to 1 that belong to a text: its hash and the position, mixed twice.
CREATE TEMP MACRO mixed(number) AS xor(number, number >> 16) * 73244475 % 4294967296;

CREATE TEMP MACRO seed_of(text) AS (md5_number_lower(text) % 4294967296)::UBIGINT;

CREATE TEMP MACRO numbers_of(text, dimension) AS
  list_transform(
    range(dimension),
    lambda position: mixed(mixed((seed_of(text) + position * 2654435761) % 4294967296))::DOUBLE / 2147483648 - 1
  );

CREATE TEMP MACRO packed_bits(numbers) AS
  list_transform(
    range(len(numbers) // 8),
    lambda byte: list_sum(
      list_transform(
        range(8),
        lambda bit: CASE WHEN numbers[byte * 8 + bit + 1] > 0 THEN 128 >> bit::INTEGER ELSE 0 END
      )
    )
  );
