-- models/prompts.sql
SELECT id AS custom_id, body AS prompt FROM {{ ref('tickets') }}
