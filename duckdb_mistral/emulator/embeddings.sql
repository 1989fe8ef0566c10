-- /v1/embeddings: for every text a vector that belongs to it, of length 1, the same in every run.
WITH
  read AS (
    SELECT
      custom_id,
      json_transform(body, '{
        "model": "VARCHAR", "input": "JSON", "output_dimension": "INTEGER", "output_dtype": "VARCHAR",
        "encoding_format": "VARCHAR"
      }') AS request
    FROM requests
  ),
  texts AS (
    SELECT
      *,
      input_texts(request.input) AS texts,
      coalesce(request.output_dimension, 1024) AS dimension,
      coalesce(request.output_dtype, 'float') AS dtype
    FROM read
  ),
  checked AS (
    SELECT
      *,
      CASE
        WHEN coalesce(len(texts), 0) = 0 OR len(texts) > list_count(texts) THEN 'input'
        WHEN dimension NOT BETWEEN 1 AND 16384 THEN 'output_dimension'
        WHEN dtype NOT IN ('float', 'int8', 'uint8', 'binary', 'ubinary') THEN 'output_dtype'
        WHEN coalesce(request.encoding_format, 'float') <> 'float' THEN 'encoding_format'
      END AS wrong,
      CASE WHEN wrong IS NULL THEN list_transform(texts, lambda text: numbers_of(text, dimension)) END AS vectors
    FROM texts
  ),
  measured AS (
    SELECT
      *,
      list_transform(vectors, lambda numbers: {
        'numbers': numbers,
        'length': sqrt(list_inner_product(numbers, numbers))
      }) AS measures
    FROM checked
  )
SELECT
  custom_id,
  array_to_string(texts, ' ') AS text,
  wrong,
  to_json({
    'id': md5(custom_id),
    'object': 'list',
    'model': coalesce(request.model, $model),
    'data': CASE
      WHEN asks(array_to_string(texts, ' '), 'empty') THEN []
      ELSE list_transform(measures, lambda measure, position: {
        'object': 'embedding',
        'index': position - 1,
        'embedding': CASE dtype
          WHEN 'float' THEN to_json(list_transform(measure.numbers, lambda x: (x / measure.length)::FLOAT))
          WHEN 'int8' THEN to_json(list_transform(measure.numbers, lambda x: round(x * 127)::INTEGER))
          WHEN 'uint8' THEN to_json(list_transform(measure.numbers, lambda x: round(x * 127)::INTEGER + 128))
          WHEN 'binary' THEN to_json(list_transform(packed_bits(measure.numbers), lambda byte: byte::INTEGER - 128))
          ELSE to_json(list_transform(packed_bits(measure.numbers), lambda byte: byte::INTEGER))
        END
      })
    END,
    'usage': usage(tokens(array_to_string(texts, ' ')), 0)
  }) AS answer
FROM measured
