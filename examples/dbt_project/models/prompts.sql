-- One request per row: custom_id and prompt are all that a source needs.
SELECT id::VARCHAR AS custom_id, opening AS prompt
FROM {{ ref('addresses') }}
